"""Turns fatal errors into messages that say what to change."""

from __future__ import annotations

import errno
import multiprocessing
import os
import re
import traceback
from collections.abc import Iterator, Sequence

import torch
from detectron2.config import CfgNode
from detectron2.utils import comm
from torch.utils.data import dataloader

from ...errors import TrainingFailed, count
from ..checkpoint.last_checkpoint import read_tag

__all__ = ["MachineError", "explain"]


class MachineError(TrainingFailed):
    """What the machine cannot do, as :func:`explain` tells it."""


def explain(error: BaseException, cfg: CfgNode) -> str | None:
    """What ended the run and what to change, or None for an error that is no known trouble.

    Args:
        error: from the training loop; what it was raised from counts, too.
        cfg: the run's config.
    """
    chain = list(_chain(error))
    text = "\n".join(f"{type(x).__name__}: {x}" for x in chain)
    for recognize in (_open_files, _shared_memory, _disk, _worker, _gpu, _cpu, _processes):
        sentence = recognize(chain, text, cfg)
        if sentence:
            return f"{sentence}. {_last_checkpoint(cfg)}"
    return None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _has_errno(chain: Sequence[BaseException], *numbers: int) -> bool:
    return any(isinstance(x, OSError) and x.errno in numbers for x in chain)


def _open_files(chain: Sequence[BaseException], text: str, cfg: CfgNode) -> str | None:
    known = "Too many open files" in text or "received 0 items of ancdata" in text
    if not known and not _has_errno(chain, errno.EMFILE, errno.ENFILE):
        return None
    return (
        "too many files are open at once; raise the limit with 'ulimit -n 65536' before the "
        f"command, or lower DATALOADER.NUM_WORKERS (now {cfg.DATALOADER.NUM_WORKERS})"
    )


def _shared_memory(chain: Sequence[BaseException], text: str, cfg: CfgNode) -> str | None:
    # PyTorch's names of the pieces of shared memory begin with torch_.
    pattern = r"Bus error|unable to (allocate|open|resize) shared memory|/torch_\w+>|/dev/shm"
    if not re.search(pattern, text):
        return None
    return (
        "the data loader's workers ran out of shared memory (/dev/shm); make it larger (docker: "
        "--shm-size=8g or --ipc=host), or lower DATALOADER.NUM_WORKERS (now "
        f"{cfg.DATALOADER.NUM_WORKERS}; 0 needs none)"
    )


def _disk(chain: Sequence[BaseException], text: str, cfg: CfgNode) -> str | None:
    full = _has_errno(chain, errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))
    texts = ("No space left on device", "Disk quota exceeded", "PytorchStreamWriter failed writing")
    if not full and not any(known in text for known in texts):
        return None
    return (
        f"a disk is full, or your quota on it is used up: free space for OUTPUT_DIR "
        f"'{cfg.OUTPUT_DIR}' or set another one, and save less often (SOLVER.CHECKPOINT_PERIOD, "
        f"now {cfg.SOLVER.CHECKPOINT_PERIOD})"
    )


def _worker(chain: Sequence[BaseException], text: str, cfg: CfgNode) -> str | None:
    named = re.search(r"DataLoader worker.*(killed by signal|exited unexpectedly)", text)
    if not named and not any(map(_lost_worker, chain)):
        return None
    return (
        "a worker of the data loader died, mostly since the machine's memory was full; lower "
        f"DATALOADER.NUM_WORKERS (now {cfg.DATALOADER.NUM_WORKERS} in each process) or the images' "
        f"size ({_size(cfg)}), or give the job more memory"
    )


def _lost_worker(error: BaseException) -> bool:
    """Whether this is what is seen of a worker that dies while it hands over a batch.

    An error that a worker met while it loaded an image comes with its traceback as text.
    """
    if not isinstance(error, (ConnectionError, EOFError)) or "worker process" in str(error):
        return False
    files = [frame.f_code.co_filename for frame, _ in traceback.walk_tb(error.__traceback__)]
    of_pipes = os.path.dirname(multiprocessing.__file__)
    return dataloader.__file__ in files and any(os.path.dirname(x) == of_pipes for x in files)


def _gpu(chain: Sequence[BaseException], text: str, cfg: CfgNode) -> str | None:
    known = any(isinstance(x, torch.cuda.OutOfMemoryError) for x in chain)
    texts = ("CUDA out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDA error: out of memory")
    if not known and not any(x in text for x in texts):
        return None
    amp = "" if cfg.SOLVER.AMP.ENABLED else ", set SOLVER.AMP.ENABLED True"
    return f"the GPU's memory is full; {_smaller_batch(cfg)}{amp}"


def _cpu(chain: Sequence[BaseException], text: str, cfg: CfgNode) -> str | None:
    known = any(isinstance(x, MemoryError) or getattr(x, "errno", 0) == errno.ENOMEM for x in chain)
    texts = ("DefaultCPUAllocator", "Cannot allocate memory", "std::bad_alloc")
    if not known and not any(x in text for x in texts):
        return None
    return (
        f"the machine's memory is full; {_smaller_batch(cfg)}, lower DATALOADER.NUM_WORKERS (now "
        f"{cfg.DATALOADER.NUM_WORKERS})"
    )


def _processes(chain: Sequence[BaseException], text: str, cfg: CfgNode) -> str | None:
    backend = r"gloo|nccl|ProcessGroup|DistBackendError|DistNetworkError|DistStoreError|TCPStore"
    lost = (
        r"closed by (remote )?peer|reset by (remote )?peer|Broken pipe|[Tt]imed? ?out|"
        r"remote process exited|[Cc]onnection refused|aborted"
    )
    if not re.search(backend, text, re.IGNORECASE) or not re.search(lost, text):
        return None
    return (
        "another process of this job ended or does not answer, so this one cannot continue; the "
        f"cause is in the log of that process (OUTPUT_DIR '{cfg.OUTPUT_DIR}', log.txt.rank*). If "
        "none has an error, a machine or the network failed"
    )


def _smaller_batch(cfg: CfgNode) -> str:
    """The ways to a step that needs less memory, the one that changes no result first."""
    solver, processes = cfg.SOLVER, comm.get_world_size()
    parts = solver.get("ACCUM_STEPS", 1)
    share = max(1, solver.IMS_PER_BATCH // processes)
    each = f"{count(share // parts, 'image')} at once in each process"
    ways = []
    if share > parts:
        finer = next(n for n in range(parts + 1, share + 1) if share % n == 0)
        ways.append(
            f"set SOLVER.ACCUM_STEPS {finer} (now {parts}, {each}), which gives the same steps"
        )
        ways.append(f"lower SOLVER.IMS_PER_BATCH (now {solver.IMS_PER_BATCH})")
    ways.append(f"train on smaller images ({_size(cfg)})")
    return ", ".join(ways)


def _size(cfg: CfgNode) -> str:
    sizes = tuple(cfg.INPUT.MIN_SIZE_TRAIN)
    return f"INPUT.MIN_SIZE_TRAIN, now {sizes}, and MAX_SIZE_TRAIN, now {cfg.INPUT.MAX_SIZE_TRAIN}"


def _last_checkpoint(cfg: CfgNode) -> str:
    name = read_tag(cfg.OUTPUT_DIR)
    if not name:
        return f"There is no checkpoint in '{cfg.OUTPUT_DIR}' yet"
    return f"The last checkpoint is {os.path.join(cfg.OUTPUT_DIR, name)}; --resume continues it"
