"""A whole new schedule after one that has ended: ``SOLVER.RESUME_SCHEDULE`` restart."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from detectron2.config import CfgNode

from ...config.solver_rules import check_iterations
from ...console import SHOWN
from ...errors import InputError

__all__ = ["cfg_from", "new_schedule", "schedule_start"]

logger = logging.getLogger(__name__)


def schedule_start(state: Mapping[str, Any], cfg: CfgNode, ended: int | None) -> tuple[int, bool]:
    """Where the schedule of a resumed run begins.

    Args:
        state: of the checkpoint.
        cfg: of the run.
        ended: ``SOLVER.MAX_ITER`` of the checkpoint's config; None where that is not known.

    Returns:
        The first iteration of the schedule, and whether it begins with this resume: with "restart",
        after a schedule that had come to its end, where there are iterations left to train.
    """
    saved, done = state.get("schedule_start", 0), state.get("iteration", -1)
    begins = saved if type(saved) is int and 0 <= saved < cfg.SOLVER.MAX_ITER else 0
    if type(done) is not int or ended is None or cfg.SOLVER.RESUME_SCHEDULE != "restart":
        return begins, False
    done += 1
    return (done, True) if ended <= done < cfg.SOLVER.MAX_ITER else (begins, False)


def cfg_from(cfg: CfgNode, start: int) -> CfgNode:
    """The config of a schedule that begins at the iteration ``start``, and counts from there.

    Raises:
        InputError: warm-up or steps do not fit into what is left.
    """
    of_rest = cfg.clone()
    of_rest.defrost()
    of_rest.SOLVER.MAX_ITER = cfg.SOLVER.MAX_ITER - start
    try:
        warnings = check_iterations(of_rest)
    except InputError as error:
        raise InputError(
            f"{error}. It is the new schedule of SOLVER.RESUME_SCHEDULE restart, which counts from "
            f"iteration {start}"
        ) from error
    for warning in warnings:
        logger.warning("%s", warning)
    return of_rest


def new_schedule(
    cfg: CfgNode,
    start: int,
    optimizer: torch.optim.Optimizer,
    base_lrs: Sequence[float],
    build: Callable[[CfgNode, torch.optim.Optimizer], Any],
) -> Any:
    """A schedule from its first iteration on, over what is left of ``SOLVER.MAX_ITER``.

    Args:
        cfg: of the run.
        start: iterations that are done.
        optimizer: keeps its momentum.
        base_lrs: the learning rate of each of its groups that the schedule multiplies.
        build: ``build_lr_scheduler`` of the trainer.
    """
    of_rest = cfg_from(cfg, start)
    for group, lr in zip(optimizer.param_groups, base_lrs, strict=True):
        group["lr"] = group["initial_lr"] = lr
    logger.info(
        "the schedule of the checkpoint had ended: a new one of %d iterations begins at iteration "
        "%d (SOLVER.RESUME_SCHEDULE restart)",
        of_rest.SOLVER.MAX_ITER,
        start,
        extra=SHOWN,
    )
    return build(of_rest, optimizer)
