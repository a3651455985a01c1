"""What ends a run is told with the values to change, and unknown errors are left alone."""

from __future__ import annotations

import errno
import math
from pathlib import Path

import pytest
import torch
from detectron2.config import CfgNode
from torch.utils.data import DataLoader

from retinanet_ext.engine.failures.nonfinite import (
    RankReport,
    describe_nonfinite,
    files_of,
    nonfinite_hint,
)
from retinanet_ext.engine.failures.reports import explain
from tests.helpers.tiny import tiny_cfg


@pytest.fixture
def cfg(tmp_path: Path) -> CfgNode:
    cfg = tiny_cfg(tmp_path)
    cfg.SOLVER.IMS_PER_BATCH, cfg.SOLVER.ACCUM_STEPS = 8, 2
    cfg.DATALOADER.NUM_WORKERS = 3
    return cfg


WORKERS = "DATALOADER.NUM_WORKERS (now 3"
SHM = "DataLoader worker (pid 7) is killed by signal: Bus error. It is possible that dataloader's"


@pytest.mark.parametrize(
    ("error", "parts"),
    [
        (
            torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
            ["GPU's memory is full", "SOLVER.ACCUM_STEPS 4 (now 2, 4 im", "IMS_PER_BATCH (now 8"],
        ),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED"), ["GPU's memory", "AMP.ENABLED"]),
        (
            RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate"),
            ["machine's memory is full", "SOLVER.ACCUM_STEPS 4", "now (64,)", WORKERS],
        ),
        (MemoryError(), ["machine's memory is full"]),
        (
            RuntimeError("DataLoader worker (pid(s) 12) exited unexpectedly"),
            ["worker of the data loader died", WORKERS, "MIN_SIZE_TRAIN, now (64,)"],
        ),
        (
            RuntimeError("DataLoader worker (pid 12) is killed by signal: Killed. "),
            ["worker of the data loader died", WORKERS],
        ),
        (RuntimeError(SHM), ["shared memory (/dev/shm)", "--shm-size", WORKERS]),
        (
            RuntimeError("unable to write to file </torch_12_9_0>: No space left on device (28)"),
            ["shared memory", WORKERS],
        ),
        (OSError(errno.ENOSPC, "No space left on device"), ["a disk is full", "OUTPUT_DIR '"]),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), ["your quota", "CHECKPOINT_PERIOD, now"]),
        (
            RuntimeError("inline_container.cc:603: PytorchStreamWriter failed writing file data/1"),
            ["a disk is full"],
        ),
        (OSError(errno.EMFILE, "Too many open files"), ["ulimit -n 65536", WORKERS]),
        (
            RuntimeError("unable to open shared memory object </torch_1>: Too many open files"),
            ["ulimit -n"],
        ),
        (RuntimeError("received 0 items of ancdata"), ["ulimit -n"]),
        (
            RuntimeError("[/gloo/transport/tcp/pair.cc:534] Connection closed by peer [::1]:9"),
            ["another process of this job ended", "log.txt.rank"],
        ),
        (
            RuntimeError("NCCL communicator was aborted: Watchdog caught a timeout"),
            ["another process of this job"],
        ),
    ],
    ids=lambda x: str(x)[:40] if isinstance(x, BaseException) else "",
)
def test_each_trouble_says_what_to_change(cfg: CfgNode, error: BaseException, parts: list[str]):
    text = explain(error, cfg)
    assert text is not None
    for part in parts:
        assert part in text
    assert text.endswith(f"There is no checkpoint in '{cfg.OUTPUT_DIR}' yet")


class Handed:
    """An item whose rebuilding in the main process talks to the worker, as tensors do."""

    def __init__(self, kind: type[BaseException]):
        self.kind = kind

    def __reduce__(self):
        return _rebuild, (self.kind,)


def _rebuild(kind: type[BaseException]):
    raise kind(errno.ECONNRESET, "Connection reset by peer")


class Items:
    def __init__(self, kind: type[BaseException], hand_over: bool):
        self.kind, self.hand_over = kind, hand_over

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int):
        if self.hand_over:
            return Handed(self.kind)
        raise self.kind("the server of the images is gone")


@pytest.mark.parametrize("kind", [ConnectionResetError, EOFError])
@pytest.mark.parametrize("hand_over", [True, False])
def test_a_worker_that_dies_while_it_hands_over_is_named(cfg: CfgNode, kind, hand_over):
    loader = DataLoader(Items(kind, hand_over), num_workers=1, collate_fn=lambda x: x[0])
    with pytest.raises(kind) as caught:
        list(loader)
    text = explain(caught.value, cfg)
    assert ("a worker of the data loader died" in (text or "")) == hand_over
    with pytest.raises(kind) as caught:
        list(DataLoader(Items(kind, False), num_workers=0))
    assert explain(caught.value, cfg) is None


def test_the_last_checkpoint_is_named(cfg: CfgNode):
    Path(cfg.OUTPUT_DIR).mkdir()
    (Path(cfg.OUTPUT_DIR) / "last_checkpoint").write_text("model_0000099.pth")
    text = explain(MemoryError(), cfg)
    assert text.endswith(f"checkpoint is {cfg.OUTPUT_DIR}/model_0000099.pth; --resume continues it")


def test_what_an_error_was_raised_from_counts(cfg: CfgNode):
    try:
        try:
            raise OSError(errno.ENOSPC, "No space left on device")
        except OSError as error:
            raise ValueError("cannot save") from error
    except ValueError as error:
        assert "a disk is full" in explain(error, cfg)


@pytest.mark.parametrize(
    "error",
    [
        ValueError("NUM_CLASSES is 80"),
        RuntimeError("CUDA error: device-side assert triggered"),
        RuntimeError("size mismatch, timed out of range"),
        FileNotFoundError(errno.ENOENT, "No such file or directory", "gloo.png"),
        KeyError("loss"),
    ],
)
def test_unknown_errors_keep_their_traceback(cfg: CfgNode, error: BaseException):
    assert explain(error, cfg) is None


def test_one_image_at_once_cannot_be_split_further(cfg: CfgNode):
    cfg.SOLVER.ACCUM_STEPS = 8
    text = explain(MemoryError(), cfg)
    assert "ACCUM_STEPS" not in text and "smaller images" in text


def test_nonfinite_losses_of_several_processes_are_told_together():
    batch = [{"file_name": f"{i}.png"} for i in range(4)] + [{"image_id": 9}]
    ranks = [
        RankReport(0, {"loss_cls": 0.5}, ["good.png"], ""),
        RankReport(1, {"loss_cls": math.nan, "loss_box": 1.0}, files_of(batch), "out/trouble/x"),
    ]
    assert describe_nonfinite(7, ranks) == (
        "iteration 7: loss_cls is nan in process 1, with the images 0.png, 1.png, 2.png and 2 more"
        ". Report: out/trouble/x; to repeat the step: python -m retinanet_ext replay-step "
        "out/trouble/x/snapshot.pth"
    )


def test_way_out_names_the_values_and_leaves_out_what_is_on(cfg: CfgNode):
    cfg.SOLVER.BASE_LR, cfg.SOLVER.IMS_PER_BATCH = 0.01, 2
    text = nonfinite_hint(cfg)
    assert "SOLVER.BASE_LR (now 0.01): 0.01 is meant for 16 images, so 0.00125 for" in text
    assert "CLIP_GRADIENTS" in text and "AMP" not in text
    cfg.SOLVER.BASE_LR, cfg.SOLVER.CLIP_GRADIENTS.ENABLED, cfg.SOLVER.AMP.ENABLED = 1e-4, True, True
    text = nonfinite_hint(cfg)
    assert "meant for" not in text and "CLIP_GRADIENTS" not in text
    assert "set SOLVER.AMP.PRECISION bfloat16" in text
