"""Checks of SOLVER: optimizer, learning rate and schedule; and of DETERMINISTIC."""

from __future__ import annotations

from typing import Any

from detectron2.config import CfgNode

from ..errors import did_you_mean
from .epochs import check_epochs, counts_epochs

OPTIMIZERS = ("SGD", "AdamW")
LR_SCHEDULERS = (
    "WarmupMultiStepLR",
    "WarmupCosineLR",
    "WarmupStepWithFixedGammaLR",
    "OneCycleLR",
)
CLIP_TYPES = ("value", "norm", "full_model")


def check_schedule(cfg: CfgNode, values: dict[str, Any], defaults: dict[str, Any]) -> None:
    """Raise on settings of SOLVER that would be ignored or cannot work.

    Args:
        cfg: the config.
        values, defaults: flat, by full name.

    Raises:
        KeyError: an unknown optimizer, schedule or kind of clipping, with the nearest real one.
        ValueError: a value that is ignored or impossible, with the key that is meant.
    """
    solver = cfg.SOLVER
    for key, known in (("OPTIMIZER", OPTIMIZERS), ("LR_SCHEDULER_NAME", LR_SCHEDULERS)):
        if solver[key] not in known:
            raise KeyError(
                f"SOLVER.{key} is '{solver[key]}', which is unknown."
                f"{did_you_mean(solver[key], known)} Known: {', '.join(known)}."
            )
    for key in ("IMS_PER_BATCH", "BASE_LR"):
        if solver[key] <= 0:
            raise ValueError(f"SOLVER.{key} must be positive, got {solver[key]}")
    if solver.CHECKPOINTS_KEPT < 0:
        raise ValueError(
            f"SOLVER.CHECKPOINTS_KEPT is {solver.CHECKPOINTS_KEPT}; set it to the number of "
            "checkpoints to keep, or to 0 to keep all"
        )
    _check_learning_rates(solver)
    _check_clipping(solver.CLIP_GRADIENTS)
    check_epochs(cfg)
    if not counts_epochs(cfg):
        check_iterations(cfg)
    ends_at_base_lr_end = solver.LR_SCHEDULER_NAME in ("WarmupCosineLR", "OneCycleLR")
    if ends_at_base_lr_end and not 0 <= solver.BASE_LR_END <= solver.BASE_LR:
        raise ValueError(
            f"SOLVER.BASE_LR_END is {solver.BASE_LR_END} with SOLVER.BASE_LR {solver.BASE_LR}; "
            f"{solver.LR_SCHEDULER_NAME} falls to it, so it must lie between 0 and BASE_LR"
        )
    if solver.LR_SCHEDULER_NAME == "OneCycleLR":
        _check_one_cycle(cfg, defaults)
        return
    if values["SOLVER.ONE_CYCLE_PCT_START"] != defaults["SOLVER.ONE_CYCLE_PCT_START"]:
        raise ValueError(
            f"SOLVER.ONE_CYCLE_PCT_START is {solver.ONE_CYCLE_PCT_START}, but "
            f"{solver.LR_SCHEDULER_NAME} does not read it; set SOLVER.LR_SCHEDULER_NAME to "
            "OneCycleLR"
        )


def check_iterations(cfg: CfgNode) -> None:
    """Raise unless what is counted in iterations fits together; with epochs, call it afterwards.

    Raises:
        ValueError: a length is not positive, or warm-up or a step does not end before training.
    """
    solver = cfg.SOLVER
    for key in ("MAX_ITER", "CHECKPOINT_PERIOD"):
        if solver[key] <= 0:
            raise ValueError(f"SOLVER.{key} must be positive, got {solver[key]}")
    if solver.LR_SCHEDULER_NAME == "OneCycleLR":
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


def check_determinism(cfg: CfgNode) -> None:
    """Raise on settings that contradict DETERMINISTIC.

    Raises:
        ValueError: there is no seed, or cuDNN is to choose its algorithms by their speed.
    """
    if not cfg.DETERMINISTIC:
        return
    if cfg.SEED < 0:
        raise ValueError(
            f"DETERMINISTIC is True but SEED is {cfg.SEED}, which draws another seed for each run; "
            "set SEED to 0 or more"
        )
    if cfg.CUDNN_BENCHMARK:
        raise ValueError(
            "DETERMINISTIC is True but so is CUDNN_BENCHMARK, which chooses algorithms by how "
            "fast they happen to be; set CUDNN_BENCHMARK False"
        )


def _check_learning_rates(solver: CfgNode) -> None:
    if solver.BASE_LR_BATCH < 0:
        raise ValueError(
            f"SOLVER.BASE_LR_BATCH is {solver.BASE_LR_BATCH}; set it to the number of images per "
            "batch that BASE_LR is meant for, or to 0 to use BASE_LR as it is"
        )
    if solver.BASE_LR_BATCH and solver.REFERENCE_WORLD_SIZE:
        raise ValueError(
            f"SOLVER.BASE_LR_BATCH is {solver.BASE_LR_BATCH} and SOLVER.REFERENCE_WORLD_SIZE is "
            f"{solver.REFERENCE_WORLD_SIZE}, and both scale the learning rate; set one of them to 0"
        )
    if not 0 < solver.LAYER_LR_DECAY <= 1:
        raise ValueError(
            f"SOLVER.LAYER_LR_DECAY must be in (0, 1], got {solver.LAYER_LR_DECAY}: the learning "
            "rate of a backbone's layer over that of the next; 1.0 is off"
        )


def _check_clipping(node: CfgNode) -> None:
    if not node.ENABLED:
        return
    if node.CLIP_TYPE not in CLIP_TYPES:
        raise KeyError(
            f"SOLVER.CLIP_GRADIENTS.CLIP_TYPE is '{node.CLIP_TYPE}', which is unknown."
            f"{did_you_mean(node.CLIP_TYPE, CLIP_TYPES)} Known: {', '.join(CLIP_TYPES)}."
        )
    for key in ("CLIP_VALUE", "NORM_TYPE"):
        if not node[key] > 0:
            raise ValueError(f"SOLVER.CLIP_GRADIENTS.{key} must be positive, got {node[key]}")


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
