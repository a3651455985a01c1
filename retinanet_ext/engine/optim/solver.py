"""Optimizers and learning-rate schedules by name, beside Detectron2's own."""

from __future__ import annotations

from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.solver import LRMultiplier, get_default_optimizer_params
from detectron2.solver import build_lr_scheduler as build_detectron2_lr_scheduler
from detectron2.solver import build_optimizer as build_detectron2_optimizer
from detectron2.solver.build import maybe_add_gradient_clipping
from fvcore.common.param_scheduler import CompositeParamScheduler, CosineParamScheduler
from torch import nn

from ...config.keys import check_keys
from ...config.solver_rules import check_lr_end
from ...errors import InputError
from .layer_decay import layer_lr_factors

ADAMW_BETA2 = 0.999


def build_optimizer(cfg: CfgNode, model: nn.Module) -> torch.optim.Optimizer:
    """Build the optimizer named by ``SOLVER.OPTIMIZER``.

    ``"SGD"`` is Detectron2's own and the paper's recipe (arXiv 1708.02002, section 4.1).
    ``"AdamW"`` reads the same keys: ``BASE_LR``, ``WEIGHT_DECAY`` (decoupled from the
    learning rate's gradient step, so useful values are larger, near 0.05),
    ``WEIGHT_DECAY_NORM``, ``WEIGHT_DECAY_BIAS``, ``BIAS_LR_FACTOR``, ``CLIP_GRADIENTS``, and
    ``MOMENTUM`` as its first beta.

    Both also take ``LAYER_LR_DECAY``, see :mod:`.layer_decay`, and the ``CLIP_TYPE``
    ``"full_model"``, see :func:`clip_full_model`.

    Raises:
        ValueError: the name is unknown, ``NESTEROV`` is asked of AdamW, or ``LAYER_LR_DECAY`` of a
            backbone without layers.
    """
    name, clipping = cfg.SOLVER.OPTIMIZER, cfg.SOLVER.CLIP_GRADIENTS
    check_keys(cfg, "SOLVER.OPTIMIZER")
    full_model = clipping.ENABLED and clipping.CLIP_TYPE == "full_model"
    if full_model:  # which Detectron2 does not know
        cfg = cfg.clone()
        cfg.defrost()
        cfg.SOLVER.CLIP_GRADIENTS.ENABLED = False
    optimizer = _build_sgd(cfg, model) if name == "SGD" else _build_adamw(cfg, model)
    if full_model:
        clip_full_model(optimizer, clipping.CLIP_VALUE, clipping.NORM_TYPE)
    return optimizer


def clip_full_model(
    optimizer: torch.optim.Optimizer, max_norm: float, norm_type: float = 2.0
) -> None:
    """Have each step of ``optimizer`` first clip the norm of all its gradients together, in place.

    The optimizer and its state stay what they are. A ``GradScaler`` divides the gradients by its
    scale before that step, so the norm is the true one.

    Args:
        optimizer: its parameters of all groups count as one vector.
        max_norm: a longer one is scaled down to this norm.
        norm_type: p of the p-norm; ``inf`` for the largest absolute value.
    """

    def clip(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        torch.nn.utils.clip_grad_norm_(parameters, max_norm, norm_type)

    optimizer.register_step_pre_hook(clip)


def _parameter_groups(cfg: CfgNode, model: nn.Module) -> list[dict[str, Any]]:
    """Parameters with the learning rate and weight decay of each."""
    solver = cfg.SOLVER
    bias_lr_factor, lr_factor = solver.BIAS_LR_FACTOR, None
    if solver.LAYER_LR_DECAY != 1:
        factors = layer_lr_factors(model, solver.LAYER_LR_DECAY)
        bias_lr_factor = 1.0  # Detectron2 would put it in place of the layer's factor

        def lr_factor(name: str) -> float:
            factor = factors[name.removeprefix(".")]
            return factor * solver.BIAS_LR_FACTOR if name.endswith(".bias") else factor

    return get_default_optimizer_params(
        model,
        base_lr=solver.BASE_LR,
        weight_decay_norm=solver.WEIGHT_DECAY_NORM,
        bias_lr_factor=bias_lr_factor,
        weight_decay_bias=solver.WEIGHT_DECAY_BIAS,
        lr_factor_func=lr_factor,
    )


def _build_sgd(cfg: CfgNode, model: nn.Module) -> torch.optim.Optimizer:
    solver = cfg.SOLVER
    if solver.LAYER_LR_DECAY == 1:
        return build_detectron2_optimizer(cfg, model)
    optimizer = torch.optim.SGD(
        _parameter_groups(cfg, model),
        lr=solver.BASE_LR,
        momentum=solver.MOMENTUM,
        nesterov=solver.NESTEROV,
        weight_decay=solver.WEIGHT_DECAY,
        foreach=True,
    )
    return maybe_add_gradient_clipping(cfg, optimizer)


def _build_adamw(cfg: CfgNode, model: nn.Module) -> torch.optim.Optimizer:
    solver = cfg.SOLVER
    if solver.NESTEROV:
        raise InputError(
            "SOLVER.NESTEROV is True but SOLVER.OPTIMIZER is 'AdamW', which has no Nesterov "
            "momentum; set SOLVER.NESTEROV False or SOLVER.OPTIMIZER SGD"
        )
    optimizer = torch.optim.AdamW(
        _parameter_groups(cfg, model),
        lr=solver.BASE_LR,
        betas=(solver.MOMENTUM, ADAMW_BETA2),
        weight_decay=solver.WEIGHT_DECAY,
        fused=_fuses_on_cpu(model),
    )
    return maybe_add_gradient_clipping(cfg, optimizer)


def _fuses_on_cpu(model: nn.Module) -> bool | None:
    """True where one pass over the parameters can do a step on the CPU, else PyTorch's own choice.

    On GPUs that is fast already. There a fused step would also take a ``GradScaler``'s scale off by
    itself, after gradients were clipped.
    """
    parameters = list(model.parameters())
    if not parameters or any(p.device.type != "cpu" for p in parameters):
        return None
    try:
        torch.optim.AdamW(parameters, fused=True)
    except RuntimeError:  # PyTorch before 2.4 fuses on GPUs only
        return None
    return True


def build_lr_scheduler(
    cfg: CfgNode, optimizer: torch.optim.Optimizer
) -> torch.optim.lr_scheduler.LRScheduler:
    """Build the schedule named by ``SOLVER.LR_SCHEDULER_NAME``, stepped once per iteration.

    ``"OneCycleLR"`` rises along a half cosine from ``WARMUP_FACTOR * BASE_LR`` to ``BASE_LR``
    over the first ``ONE_CYCLE_PCT_START`` of ``MAX_ITER``, then falls along a half cosine to
    ``BASE_LR_END``. It has its own rise, so ``WARMUP_ITERS`` and ``WARMUP_METHOD`` do not
    apply, and momentum stays constant. Every other name is Detectron2's.

    Raises:
        ValueError: the name is unknown, or a value of the one-cycle schedule is out of range.
    """
    check_keys(cfg, "SOLVER.LR_SCHEDULER_NAME")
    if cfg.SOLVER.LR_SCHEDULER_NAME == "OneCycleLR":
        check_keys(cfg, "SOLVER.ONE_CYCLE_PCT_START", "SOLVER.BASE_LR")
        check_lr_end(cfg)
        multiplier = _one_cycle_multiplier(cfg)
        return LRMultiplier(optimizer, multiplier=multiplier, max_iter=cfg.SOLVER.MAX_ITER)
    return build_detectron2_lr_scheduler(cfg, optimizer)


def _one_cycle_multiplier(cfg: CfgNode) -> CompositeParamScheduler:
    """Multiplier of ``BASE_LR`` over training progress in [0, 1]."""
    rise, start = cfg.SOLVER.ONE_CYCLE_PCT_START, cfg.SOLVER.WARMUP_FACTOR
    base_lr, end_lr = cfg.SOLVER.BASE_LR, cfg.SOLVER.BASE_LR_END
    return CompositeParamScheduler(
        [CosineParamScheduler(start, 1.0), CosineParamScheduler(1.0, end_lr / base_lr)],
        lengths=[rise, 1.0 - rise],
        interval_scaling=["rescaled", "rescaled"],
    )
