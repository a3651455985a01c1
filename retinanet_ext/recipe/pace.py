"""A few measured steps and evaluated pictures, before a training whose length they set."""

from __future__ import annotations

import itertools
import logging
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import mean

import torch
from detectron2.config import CfgNode
from detectron2.utils.events import EventStorage

from ..engine.evaluating.pooled import evaluated_model
from ..engine.trainer import RetinaNetTrainer
from .length import Pace

__all__ = ["measure_pace", "stopwatch"]

Clock = Callable[[], float]

LONGEST_LOADING = 15.0  # seconds from the start of the process; more were spent on something else
WARM_UP = 3  # steps that do not count: memory is taken, the data workers fill their queues
LEAST_STEPS, MOST_STEPS = 8, 60
OF_BUDGET = 0.03  # share of the time that measuring steps may take, beyond the least
PICTURES = 12  # that are evaluated
SCORING = 2.0  # seconds of an evaluation that are not the network's: AP, and two checkpoints
END = 4.0  # seconds of the last tables and files
REPORT = 15.0  # seconds of the page about the results, beside looking at the pictures again


def measure_pace(
    cfg: CfgNode, budget: float, val_images: int, clock: Clock = time.monotonic
) -> Pace:
    """Train and evaluate a little, and throw it away.

    Args:
        cfg: of the run, complete but for its length; ``MODEL.DEVICE`` is there.
        budget: seconds that the whole command may take.
        val_images: pictures of an evaluation.
        clock: seconds; :func:`time.monotonic`.

    Returns:
        What was measured, without ``spent``.

    Raises:
        torch.OutOfMemoryError: the batch does not fit.
        UserError, TrainingFailed: as in the training itself.
    """
    started = clock()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder, _silence():
        cfg = _for_measuring(cfg, folder)
        trainer = RetinaNetTrainer(cfg)
        trainer.resume_or_load(resume=False)
        setup = clock() - started
        try:
            step = _seconds_per_step(trainer, OF_BUDGET * budget, clock)
        finally:
            if hasattr(trainer.data_loader, "close"):
                trainer.data_loader.close()
        once = evaluation = 0.0
        if val_images:
            once = _seconds_per_picture(cfg, trainer, clock) * val_images
            evaluation = SCORING + once * (2 if trainer.ema else 1)
    reports = val_images and cfg.TEST.get("REPORT", False)  # a key of the report's
    return Pace(step, evaluation, setup=setup, end=END + (REPORT + once if reports else 0.0))


@contextmanager
def _silence() -> Iterator[None]:
    """Nothing is logged: the training will say all of it."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        yield
    finally:
        logging.disable(before)


def stopwatch() -> Callable[[], float]:
    """Counts seconds from now, and from the start of the process where that was a moment ago."""
    begun, before = time.monotonic(), min(_age_of_process(), LONGEST_LOADING)
    return lambda: before + time.monotonic() - begun


def _age_of_process() -> float:
    """Seconds; 0 where the system does not tell."""
    try:
        with open("/proc/self/stat") as file:
            after_name = file.read().rpartition(")")[2].split()
        with open("/proc/uptime") as file:
            up = float(file.read().split()[0])
        return max(0.0, up - int(after_name[19]) / os.sysconf("SC_CLK_TCK"))
    except (OSError, ValueError, IndexError, AttributeError):
        return 0.0


def _for_measuring(cfg: CfgNode, folder: str) -> CfgNode:
    cfg = cfg.clone()
    cfg.defrost()
    cfg.OUTPUT_DIR = folder
    cfg.WRITERS = []
    cfg.SOLVER.MAX_ITER = 10**6
    cfg.TEST.EVAL_PERIOD = 0
    cfg.freeze()
    return cfg


def _seconds_per_step(trainer: RetinaNetTrainer, most: float, clock: Clock) -> float:
    times: list[float] = []
    with EventStorage(0) as trainer.storage:
        for done in itertools.count(1):
            started = clock()
            trainer.run_step()
            if trainer.ema:
                trainer.ema.update()
            if trainer.cfg.MODEL.DEVICE.startswith("cuda"):
                torch.cuda.synchronize()
            trainer.storage.step()
            if done > WARM_UP:
                times.append(clock() - started)
            if len(times) >= LEAST_STEPS and (sum(times) > most or len(times) >= MOST_STEPS):
                return mean(times)
    raise AssertionError("itertools.count has no end")


def _seconds_per_picture(cfg: CfgNode, trainer: RetinaNetTrainer, clock: Clock) -> float:
    """Of the model, which after a few steps finds as many boxes as it later does."""
    model = evaluated_model(cfg, trainer.model)
    was_training = model.training
    model.eval()
    times: list[float] = []
    with torch.no_grad():
        loader = iter(trainer.build_test_loader(cfg, cfg.DATASETS.TEST[0]))
        for _ in range(PICTURES):
            started = clock()
            batch = next(loader, None)
            if batch is None:
                break
            model(batch)
            times.append(clock() - started)
    model.train(was_training)
    return mean(times[1:] or times or [0.0])
