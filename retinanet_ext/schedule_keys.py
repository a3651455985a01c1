"""Checks of SOLVER: optimizer, learning rate and schedule."""

from __future__ import annotations

from typing import Any

from detectron2.config import CfgNode

from .messages import did_you_mean

OPTIMIZERS = ("SGD", "AdamW")
LR_SCHEDULERS = (
    "WarmupMultiStepLR",
    "WarmupCosineLR",
    "WarmupStepWithFixedGammaLR",
    "OneCycleLR",
)


def check_schedule(cfg: CfgNode, values: dict[str, Any], defaults: dict[str, Any]) -> None:
    """Raise on settings of SOLVER that would be ignored or cannot work.

    Args:
        cfg: the config.
        values, defaults: flat, by full name.

    Raises:
        KeyError: an unknown optimizer or schedule, with the nearest real one.
        ValueError: a value that is ignored or impossible, with the key that is meant.
    """
    solver = cfg.SOLVER
    for key, known in (("OPTIMIZER", OPTIMIZERS), ("LR_SCHEDULER_NAME", LR_SCHEDULERS)):
        if solver[key] not in known:
            raise KeyError(
                f"SOLVER.{key} is '{solver[key]}', which is unknown."
                f"{did_you_mean(solver[key], known)} Known: {', '.join(known)}."
            )
    for key in ("MAX_ITER", "IMS_PER_BATCH", "CHECKPOINT_PERIOD", "BASE_LR"):
        if solver[key] <= 0:
            raise ValueError(f"SOLVER.{key} must be positive, got {solver[key]}")
    ends_at_base_lr_end = solver.LR_SCHEDULER_NAME in ("WarmupCosineLR", "OneCycleLR")
    if ends_at_base_lr_end and not 0 <= solver.BASE_LR_END <= solver.BASE_LR:
        raise ValueError(
            f"SOLVER.BASE_LR_END is {solver.BASE_LR_END} with SOLVER.BASE_LR {solver.BASE_LR}; "
            f"{solver.LR_SCHEDULER_NAME} falls to it, so it must lie between 0 and BASE_LR"
        )
    if solver.LR_SCHEDULER_NAME == "OneCycleLR":
        _check_one_cycle(cfg, defaults)
        return
    if solver.WARMUP_ITERS >= solver.MAX_ITER:
        raise ValueError(
            f"SOLVER.WARMUP_ITERS is {solver.WARMUP_ITERS} with SOLVER.MAX_ITER {solver.MAX_ITER}, "
            "so the learning rate would never reach BASE_LR; set WARMUP_ITERS to a tenth of "
            "MAX_ITER or less"
        )
    if solver.LR_SCHEDULER_NAME == "WarmupMultiStepLR":
        steps = list(solver.STEPS)
        if steps != sorted(steps) or any(step >= solver.MAX_ITER for step in steps):
            raise ValueError(
                f"SOLVER.STEPS is {tuple(steps)} with SOLVER.MAX_ITER {solver.MAX_ITER}: steps "
                "must rise and lie below MAX_ITER, else those decays never happen; set STEPS to () "
                "for none"
            )
    if values["SOLVER.ONE_CYCLE_PCT_START"] != defaults["SOLVER.ONE_CYCLE_PCT_START"]:
        raise ValueError(
            f"SOLVER.ONE_CYCLE_PCT_START is {solver.ONE_CYCLE_PCT_START}, but "
            f"{solver.LR_SCHEDULER_NAME} does not read it; set SOLVER.LR_SCHEDULER_NAME to "
            "OneCycleLR"
        )


def _check_one_cycle(cfg: CfgNode, defaults: dict[str, Any]) -> None:
    solver = cfg.SOLVER
    if not 0 < solver.ONE_CYCLE_PCT_START < 1:
        raise ValueError(
            f"SOLVER.ONE_CYCLE_PCT_START must be in (0, 1), got {solver.ONE_CYCLE_PCT_START}"
        )
    if solver.WARMUP_ITERS not in (0, defaults["SOLVER.WARMUP_ITERS"]):
        raise ValueError(
            f"SOLVER.WARMUP_ITERS is {solver.WARMUP_ITERS}, but OneCycleLR does not read it; set "
            "SOLVER.ONE_CYCLE_PCT_START"
        )
