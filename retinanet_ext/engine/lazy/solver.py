"""Optimizer and learning rate of a config as LazyCalls; values as in :mod:`..optim.solver`."""

from __future__ import annotations

from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.config import LazyCall as L
from detectron2.solver import WarmupParamScheduler, get_default_optimizer_params
from fvcore.common.param_scheduler import (
    CompositeParamScheduler,
    CosineParamScheduler,
    MultiStepParamScheduler,
)

from ...errors import InputError
from ..optim.solver import ADAMW_BETA2

SOLVER_KEYS = (
    "SOLVER.BASE_LR",
    "SOLVER.BASE_LR_END",
    "SOLVER.BIAS_LR_FACTOR",
    "SOLVER.GAMMA",
    "SOLVER.LR_SCHEDULER_NAME",
    "SOLVER.MOMENTUM",
    "SOLVER.NESTEROV",
    "SOLVER.ONE_CYCLE_PCT_START",
    "SOLVER.OPTIMIZER",
    "SOLVER.RESCALE_INTERVAL",
    "SOLVER.STEPS",
    "SOLVER.WARMUP_FACTOR",
    "SOLVER.WARMUP_ITERS",
    "SOLVER.WARMUP_METHOD",
    "SOLVER.WEIGHT_DECAY",
    "SOLVER.WEIGHT_DECAY_BIAS",
    "SOLVER.WEIGHT_DECAY_NORM",
)


def lazy_optimizer(cfg: CfgNode) -> Any:
    """``SOLVER.OPTIMIZER``; the tool sets ``params.model``."""
    solver = cfg.SOLVER
    params = L(get_default_optimizer_params)(
        base_lr="${..lr}",
        weight_decay_norm=solver.WEIGHT_DECAY_NORM,
        bias_lr_factor=solver.BIAS_LR_FACTOR,
        weight_decay_bias=solver.WEIGHT_DECAY_BIAS,
    )
    common = {"params": params, "lr": solver.BASE_LR, "weight_decay": solver.WEIGHT_DECAY}
    if solver.OPTIMIZER == "AdamW":
        return L(torch.optim.AdamW)(**common, betas=[solver.MOMENTUM, ADAMW_BETA2])
    return L(torch.optim.SGD)(**common, momentum=solver.MOMENTUM, nesterov=solver.NESTEROV)


def lazy_lr_multiplier(cfg: CfgNode) -> Any:
    """``SOLVER.LR_SCHEDULER_NAME``, as a multiplier of the learning rate over the training.

    Raises:
        InputError: for a schedule that is not one of three.
    """
    solver = cfg.SOLVER
    end = solver.BASE_LR_END / solver.BASE_LR
    if solver.LR_SCHEDULER_NAME == "OneCycleLR":
        rise = solver.ONE_CYCLE_PCT_START
        return L(CompositeParamScheduler)(
            schedulers=[
                L(CosineParamScheduler)(start_value=solver.WARMUP_FACTOR, end_value=1.0),
                L(CosineParamScheduler)(start_value=1.0, end_value=end),
            ],
            lengths=[rise, 1.0 - rise],
            interval_scaling=["rescaled", "rescaled"],
        )
    if solver.LR_SCHEDULER_NAME == "WarmupMultiStepLR":
        schedule = L(MultiStepParamScheduler)(
            values=[solver.GAMMA**k for k in range(len(solver.STEPS) + 1)],
            milestones=list(solver.STEPS),
            num_updates=solver.MAX_ITER,
        )
    elif solver.LR_SCHEDULER_NAME == "WarmupCosineLR":
        schedule = L(CosineParamScheduler)(start_value=1.0, end_value=end)
    else:
        raise InputError(
            f"SOLVER.LR_SCHEDULER_NAME is '{solver.LR_SCHEDULER_NAME}', which has no LazyConfig "
            "form here; set it to WarmupMultiStepLR, WarmupCosineLR or OneCycleLR"
        )
    return L(WarmupParamScheduler)(
        scheduler=schedule,
        warmup_factor=solver.WARMUP_FACTOR,
        warmup_length=min(solver.WARMUP_ITERS / solver.MAX_ITER, 1.0),
        warmup_method=solver.WARMUP_METHOD,
        rescale_interval=solver.RESCALE_INTERVAL,
    )
