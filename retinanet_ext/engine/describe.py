"""A run in words, for the first and the last lines on the console."""

from __future__ import annotations

import datetime
import logging
import os

import torch
from detectron2.config import CfgNode
from detectron2.engine import DefaultTrainer
from detectron2.utils import comm
from torch import nn

from ..console import SHOWN
from ..errors import count

__all__ = ["describe_device", "describe_model", "describe_schedule", "log_end", "log_start"]

logger = logging.getLogger(__name__)


def describe_model(cfg: CfgNode, model: nn.Module) -> str:
    """Such as ``RetinaNetExt on ResNet-50 with FPN, 37.97 M parameters (37.74 M trained)``.

    Args:
        cfg: the config that ``model`` was built from.
        model: not wrapped for several processes.
    """
    name = type(model).__name__
    backbone = getattr(model, "backbone", None)
    if backbone is not None:
        bottom_up = getattr(backbone, "bottom_up", None)
        body = type(backbone if bottom_up is None else bottom_up).__name__
        if body == "ResNet":
            body += f"-{cfg.MODEL.RESNETS.DEPTH}"
        name += f" on {body}" + (f" with {type(backbone).__name__}" if bottom_up else "")
    sizes = [(p.numel(), p.requires_grad) for p in model.parameters()]
    total, trained = sum(n for n, _ in sizes), sum(n for n, grad in sizes if grad)
    part = f" ({trained / 1e6:.2f} M trained)" if trained < total else ""
    return f"{name}, {total / 1e6:.2f} M parameters{part}"


def describe_schedule(cfg: CfgNode, start: int = 0) -> str:
    """Such as ``90000 iterations of 16 images, SGD with learning rate 0.01``.

    Args:
        cfg: the config of the run.
        start: the first iteration, above 0 in a run that is resumed.
    """
    solver = cfg.SOLVER
    rest = f", of which {start} are done" if start else ""
    optimizer = f"{solver.get('OPTIMIZER', 'SGD')} with learning rate {solver.BASE_LR:g}"
    iterations = count(solver.MAX_ITER, "iteration")
    return f"{iterations} of {count(solver.IMS_PER_BATCH, 'image')}, {optimizer}{rest}"


def describe_device(cfg: CfgNode) -> str:
    """Such as ``cpu with 2 of 8 cores, 1 process`` or ``8 x NVIDIA H100``."""
    processes = comm.get_world_size()
    if torch.device(cfg.MODEL.DEVICE).type == "cuda":
        return f"{processes} x {torch.cuda.get_device_name()}"
    threads = f"{torch.get_num_threads()} of {os.cpu_count()} cores"
    each = "1 process" if processes == 1 else f"each of {processes} processes"
    return f"{cfg.MODEL.DEVICE} with {threads}, {each}"


def log_start(trainer: DefaultTrainer, resume: bool) -> None:
    """Say what is trained, from where and on what; warn of checkpoints that are overwritten.

    Args:
        trainer: whose weights are loaded.
        resume: whether it was asked to continue from a checkpoint.
    """
    cfg, output_dir = trainer.cfg, trainer.cfg.OUTPUT_DIR
    weights = f"weights {cfg.MODEL.WEIGHTS}" if cfg.MODEL.WEIGHTS else "random weights"
    if trainer.start_iter:
        weights = "weights of the checkpoint"
    _show("model: %s, %s", describe_model(cfg, trainer.checkpointer.model), weights)
    tests = f"; evaluated on {', '.join(cfg.DATASETS.TEST)}" if cfg.DATASETS.TEST else ""
    _show("training: %s%s", describe_schedule(cfg, trainer.start_iter), tests)
    _show("device: %s; results and log.txt: %s", describe_device(cfg), output_dir)
    if trainer.start_iter:
        checkpoint = trainer.checkpointer.get_checkpoint_file()
        _show("resuming at iteration %d from %s", trainer.start_iter, checkpoint)
    elif resume:
        _show("no checkpoint in %s to resume from: starting at iteration 0", output_dir)
    elif trainer.checkpointer.has_checkpoint():
        logger.warning(
            "%s holds checkpoints of an earlier run, which this run will overwrite; to continue "
            "that one instead, add --resume; to keep it, set another OUTPUT_DIR",
            output_dir,
        )


def log_end(trainer: DefaultTrainer, seconds: float) -> None:
    """Say how long training took and where its results are."""
    _show(
        "done: %s in %s; model_final.pth, metrics.json and log.txt are in %s",
        count(max(0, trainer.max_iter - trainer.start_iter), "iteration"),
        datetime.timedelta(seconds=round(seconds)),
        trainer.cfg.OUTPUT_DIR,
    )


def _show(text: str, *values: object) -> None:
    logger.info(text, *values, extra=SHOWN)
