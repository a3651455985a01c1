"""One batch and one image through everything that a training run would do."""

from __future__ import annotations

import itertools
import logging
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.evaluation import inference_on_dataset
from detectron2.utils import comm
from detectron2.utils.events import EventStorage

from ..console import SHOWN, hushed
from ..errors import count
from .describe import describe_device, describe_model
from .evaluating.pooled import evaluated_model
from .trainer import RetinaNetTrainer

logger = logging.getLogger(__name__)

COMPARE_RUNS = ("retinanet_ext.data.loading.stream", "retinanet_ext.engine.records.run_state")
"""Loggers that tell how a run differs from its checkpoint's: a dry run's batch is another one."""
MAX_CPU_IMAGES = 2  # per process: a full batch for GPUs takes minutes and fills the memory


def dry_run(cfg: CfgNode, resume: bool = False) -> dict[str, float]:
    """Build everything, train one iteration, evaluate one image per process; keep nothing.

    On a CPU the batch is cut to two images per process. Files go to a temporary folder.

    Args:
        cfg: the run's config.
        resume: whether the last checkpoint in ``OUTPUT_DIR`` is loaded, as the run would.

    Returns:
        The losses of the iteration.

    Raises:
        NonFiniteLoss: a loss is not finite.
        WeightsError: the weights or the checkpoint cannot be used.
    """
    started = time.perf_counter()
    # The trainer's writers keep files open, which Windows would not delete.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        output_dir, cfg = cfg.OUTPUT_DIR, _shrunk(cfg, folder)
        trainer = RetinaNetTrainer(cfg)
        _load(trainer, output_dir, resume)
        _show("model: %s, on %s", describe_model(cfg, trainer.model), describe_device(cfg))
        losses = _train_step(trainer)
        _evaluate_image(cfg, trainer)
    comm.synchronize()
    seconds = time.perf_counter() - started
    _show("dry run passed in %.1f s%s", seconds, _peak_memory())
    return losses


def _load(trainer: RetinaNetTrainer, output_dir: str, resume: bool) -> None:
    """Load what the run in ``output_dir`` would start from."""
    checkpointer = trainer.checkpointer
    folder = checkpointer.save_dir
    words = [logging.getLogger(name) for name in COMPARE_RUNS]
    checkpointer.save_dir = output_dir
    try:
        for logger_ in words:
            logger_.disabled = True
        with hushed():  # its words are about a run
            trainer.resume_or_load(resume=resume)
    finally:
        checkpointer.save_dir = folder
        for logger_ in words:
            logger_.disabled = False
    if resume and trainer.start_iter:
        _show("resumes %s", checkpointer.get_checkpoint_file())


def _shrunk(cfg: CfgNode, folder: str) -> CfgNode:
    """``cfg`` with its output in ``folder``, data loaded in this process, and a batch for a CPU."""
    cfg = cfg.clone()
    cfg.defrost()
    cfg.OUTPUT_DIR = folder
    cfg.DATALOADER.NUM_WORKERS = 0
    limit, batch = MAX_CPU_IMAGES * comm.get_world_size(), cfg.SOLVER.IMS_PER_BATCH
    if cfg.MODEL.DEVICE == "cpu" and batch > limit:
        _show("on a CPU a dry run takes %d of the batch's %d images", limit, batch)
        cfg.SOLVER.IMS_PER_BATCH, cfg.SOLVER.REFERENCE_WORLD_SIZE = limit, 0
        cfg.SOLVER.ACCUM_STEPS = min(cfg.SOLVER.ACCUM_STEPS, MAX_CPU_IMAGES)
    cfg.freeze()
    return cfg


def _show(text: str, *values: object) -> None:
    logger.info(text, *values, extra=SHOWN)


def _train_step(trainer: RetinaNetTrainer) -> dict[str, float]:
    """Run one iteration of the trainer's own loop; return its losses."""
    data_loader = trainer.data_loader
    shapes: list[tuple[int, ...]] = []

    def watched() -> Iterator[Any]:
        for batch in data_loader:
            shapes.extend(tuple(sample["image"].shape) for sample in batch)
            yield batch

    trainer._trainer.reset_data_loader(watched)
    trainer._trainer.bad_batches.on_nonfinite = (
        None  # its report would go with the temporary folder
    )
    started = time.perf_counter()
    with EventStorage(0) as trainer.storage:
        trainer.run_step()
        losses = {
            name: value for name, (value, _) in trainer.storage.latest().items() if "loss" in name
        }
    _show("batch: %s of shapes %s", count(len(shapes), "image"), shapes)
    text = "  ".join(f"{name} {value:.4g}" for name, value in losses.items())
    _show("forward, backward, step: %s  %.1f s", text, time.perf_counter() - started)
    return losses


class _FirstBatch:
    """The first batch of a data loader."""

    def __init__(self, loader: Any):
        self._loader = loader

    def __len__(self) -> int:
        return min(1, len(self._loader))

    def __iter__(self) -> Iterator[Any]:
        return itertools.islice(self._loader, len(self))


def _evaluate_image(cfg: CfgNode, trainer: RetinaNetTrainer) -> None:
    """Run the model and the evaluator of the first test dataset on one image per process."""
    if not cfg.DATASETS.TEST:
        _show("no DATASETS.TEST: nothing evaluated")
        return
    name = cfg.DATASETS.TEST[0]
    started = time.perf_counter()
    loader = _FirstBatch(trainer.build_test_loader(cfg, name))
    with hushed():  # AP of one image says nothing
        model = evaluated_model(cfg, trainer.model)
        inference_on_dataset(model, loader, trainer.build_evaluator(cfg, name))
    _show("evaluated one image of %s in %.1f s", name, time.perf_counter() - started)


def _peak_memory() -> str:
    """Peak memory of this process, for a log line; empty where the system does not tell."""
    parts = []
    try:
        import resource
    except ImportError:  # Windows
        pass
    else:
        unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss, in bytes
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
        parts.append(f"peak memory {peak / 2**20:.0f} MB")
    if torch.cuda.is_available():
        parts.append(f"on the GPU {torch.cuda.max_memory_allocated() / 2**20:.0f} MB")
    return "".join(f", {part}" for part in parts)
