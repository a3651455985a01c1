"""Rules between keys of SOLVER: learning rate, clipping, schedule."""

from __future__ import annotations

from collections.abc import Sequence

from detectron2.config import CfgNode

from ..errors import InputError
from .epochs import check_epochs, counts_epochs

__all__ = ["check_iterations", "check_lr_end", "check_schedule"]

READS_STEPS = "WarmupMultiStepLR"
ENDS_AT_BASE_LR_END = ("WarmupCosineLR", "OneCycleLR")


def check_schedule(
    cfg: CfgNode, default_warmup: int, default_steps: Sequence[int] = ()
) -> list[str]:
    """Raise on settings of SOLVER that would be ignored or cannot work together.

    Args:
        cfg: the config.
        default_warmup: ``SOLVER.WARMUP_ITERS`` where nobody sets it.
        default_steps: ``SOLVER.STEPS`` where nobody sets it.

    Returns:
        Warnings, also about ``SOLVER.STEPS`` that nothing reads: a base config may have set them,
        and the command line another schedule.

    Raises:
        InputError: the key, its value and the fix.
    """
    solver = cfg.SOLVER
    if solver.BASE_LR_BATCH and solver.REFERENCE_WORLD_SIZE:
        raise InputError(
            f"SOLVER.BASE_LR_BATCH is {solver.BASE_LR_BATCH} and SOLVER.REFERENCE_WORLD_SIZE is "
            f"{solver.REFERENCE_WORLD_SIZE}, and both scale the learning rate; set one of them to 0"
        )
    check_epochs(cfg)
    warnings = [] if counts_epochs(cfg) else check_iterations(cfg)
    check_lr_end(cfg)
    one_cycle = solver.LR_SCHEDULER_NAME == "OneCycleLR"
    if one_cycle and solver.WARMUP_ITERS not in (0, default_warmup):
        raise InputError(
            f"SOLVER.WARMUP_ITERS is {solver.WARMUP_ITERS}, but OneCycleLR does not read it; set "
            "SOLVER.ONE_CYCLE_PCT_START"
        )
    steps = tuple(solver.STEPS)
    if solver.LR_SCHEDULER_NAME != READS_STEPS and steps not in ((), tuple(default_steps)):
        warnings.append(
            f"SOLVER.STEPS is {steps}, but {solver.LR_SCHEDULER_NAME} does not read it, and the "
            f"learning rate does not fall there; set SOLVER.LR_SCHEDULER_NAME to {READS_STEPS}, or "
            "STEPS to ()"
        )
    return warnings


def check_lr_end(cfg: CfgNode) -> None:
    """Raise InputError unless the learning rate can fall to ``SOLVER.BASE_LR_END``, if it does."""
    solver = cfg.SOLVER
    falls = solver.LR_SCHEDULER_NAME in ENDS_AT_BASE_LR_END
    if falls and not 0 <= solver.BASE_LR_END <= solver.BASE_LR:
        raise InputError(
            f"SOLVER.BASE_LR_END is {solver.BASE_LR_END} with SOLVER.BASE_LR {solver.BASE_LR}; "
            f"{solver.LR_SCHEDULER_NAME} falls to it, so it must lie between 0 and BASE_LR"
        )


def check_iterations(cfg: CfgNode) -> list[str]:
    """Raise unless what is counted in iterations fits together; with epochs, call it afterwards.

    Returns:
        A warning where warm-up does not end before training, as in Detectron2's files for quick
        tests.

    Raises:
        InputError: a length is not positive, or a step does not lie before the end of training.
    """
    solver = cfg.SOLVER
    for key in ("MAX_ITER", "CHECKPOINT_PERIOD"):
        if solver[key] <= 0:
            raise InputError(f"SOLVER.{key} must be positive, got {solver[key]}")
    if solver.LR_SCHEDULER_NAME == "OneCycleLR":
        return []
    warnings = []
    if solver.WARMUP_ITERS >= solver.MAX_ITER:
        warnings.append(
            f"SOLVER.WARMUP_ITERS is {solver.WARMUP_ITERS} with SOLVER.MAX_ITER {solver.MAX_ITER}, "
            "so all of the training is warm-up; set WARMUP_ITERS to a tenth of MAX_ITER or less"
        )
    if solver.LR_SCHEDULER_NAME == READS_STEPS:
        steps = list(solver.STEPS)
        if steps != sorted(steps) or any(step >= solver.MAX_ITER for step in steps):
            raise InputError(
                f"SOLVER.STEPS is {tuple(steps)} with SOLVER.MAX_ITER {solver.MAX_ITER}: steps "
                "must rise and lie below MAX_ITER, else those decays never happen; set STEPS to () "
                "for none"
            )
    return warnings
