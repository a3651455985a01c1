"""A job that torchrun or Slurm starts again continues where it was, without ``--resume``."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field

from detectron2.utils import comm

from ...files import write_text

START_FILE = "last_start"
"""In ``OUTPUT_DIR``: the job that started there last without ``--resume``."""


@dataclass(frozen=True)
class Starts:
    """Names of one start of a job; all empty if nothing would start it again."""

    own: frozenset[str] = field(default_factory=frozenset)
    """Those under which a later start of the job knows this one."""
    earlier: frozenset[str] = field(default_factory=frozenset)
    """Those that an earlier start of the same job would have had."""


def job_starts(environ: Mapping[str, str] = os.environ) -> Starts:
    """Names of this start of the job, from all of its processes; call it in each of them."""
    # One machine's torchrun may be new, or not know that another's process failed.
    starts = comm.all_gather(_starts_of_process(environ))
    own, earlier = (frozenset[str]().union(*names) for names in zip(*starts, strict=True))
    return Starts(own, earlier)


def continues_job(output_dir: str, starts: Starts) -> bool:
    """Whether this run, started without ``--resume``, should continue from ``output_dir``.

    True where an earlier start of the same job has saved a checkpoint there. Checkpoints that
    ``output_dir`` held when the job first started are another run's, and do not count. Call it in
    the main process, once per start, before anything is loaded.

    Args:
        output_dir: ``OUTPUT_DIR``; an address ("://") is never continued by itself.
        starts: see :func:`job_starts`.

    Raises:
        OSError: ``output_dir`` cannot be written.
    """
    if not starts.own or "://" in output_dir:
        return False
    mark = os.path.join(output_dir, START_FILE)
    known = _read(mark)
    if not known & starts.earlier:
        os.makedirs(output_dir, exist_ok=True)
        _write(mark, starts.own)
        return False
    # With the time of the first start, since when checkpoints count.
    _write(mark, known | starts.own, os.stat(mark).st_mtime_ns)
    return _is_newer(os.path.join(output_dir, "last_checkpoint"), mark)


def _starts_of_process(environ: Mapping[str, str]) -> tuple[list[str], list[str]]:
    """Names of this start, and of earlier ones, that this process knows."""
    own, earlier = [], []
    job = environ.get("SLURM_JOB_ID")
    if job:  # preempted or requeued, it is started with the same number
        count = _count(environ, "SLURM_RESTART_COUNT")
        own.append(f"Slurm job {job}, start {count}")
        earlier += [f"Slurm job {job}, start {i}" for i in range(count)]
    run = environ.get("TORCHELASTIC_RUN_ID")
    if run:
        # In a folder that each torchrun makes for itself. The count says less: on other machines
        # than that of the failed process it stays.
        folder, found, _ = environ.get("TORCHELASTIC_ERROR_FILE", "").partition("attempt_")
        if found:
            name = f"torchrun {run} {socket.gethostname()} {folder}"
            own.append(name)
            earlier.append(name)
        else:
            count = _count(environ, "TORCHELASTIC_RESTART_COUNT")
            own.append(f"torchrun {run}, start {count}")
            earlier += [f"torchrun {run}, start {i}" for i in range(count)]
    return own, earlier


def _count(environ: Mapping[str, str], name: str) -> int:
    text = environ.get(name, "")
    return int(text) if text.isdecimal() else 0


def _read(path: str) -> frozenset[str]:
    try:
        with open(path) as file:
            return frozenset(file.read().splitlines())
    except FileNotFoundError:
        return frozenset()


def _write(path: str, names: frozenset[str], time_ns: int | None = None) -> None:
    write_text(path, "".join(f"{name}\n" for name in sorted(names)), time_ns)


def _is_newer(path: str, than: str) -> bool:
    """Compares the times of files: of one file system, so that no clocks disagree."""
    try:
        return os.stat(path).st_mtime_ns >= os.stat(than).st_mtime_ns
    except FileNotFoundError:
        return False
