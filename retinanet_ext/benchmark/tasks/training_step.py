"""A training step of a whole model: forward, backward and the optimizer's step."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from detectron2.config import CfgNode, instantiate
from detectron2.solver import build_optimizer as build_sgd
from detectron2.utils.events import EventStorage
from torch import Tensor, nn

from ...engine.lazy.solver import lazy_optimizer
from ...engine.optim.solver import build_optimizer
from ..agreement import compare_losses, compare_parameter_gradients
from ..inputs import make_batch
from ..measure import Work
from ..peers import (
    DETECTRON2,
    OURS,
    TORCHVISION,
    Variant,
    build_pair,
    build_side,
    build_torchvision,
    torchvision_inputs,
)
from ..precision import autocast, full_precision, products
from ..runner import Benchmark
from ..settings import Settings

__all__ = ["run_training_step", "slow_learning", "training_step", "training_step_work"]

# Steps must not change the weights so much that the numbers overflow.
SMALL_LEARNING_RATE = 1e-6

# Relative. By as much activations of a small network differ after PyTorch's batch norm of its two
# memory formats: 1e-6 in the first stage and 1e-5 in the last (192 x 256, float32).
ROUNDING = 3e-6


def run_training_step(bench: Benchmark, variant: Variant | None = None) -> None:
    """Forward, backward and a step of ``SOLVER.OPTIMIZER``, each side with its own optimizer.

    Args:
        bench: takes the rows.
        variant: other config keys for our side; only the time is measured.
    """
    settings, suffix = bench.settings, "" if variant is None else f", {variant.name}"
    task = "training-step" if variant is None else f"training-step-{variant.name}"
    theirs, ours = build_pair(settings, settings.with_keys(variant.keys) if variant else None)
    batch = make_batch(settings, settings.batch)
    bench.agree(task, *_differences(task, theirs, ours, batch))
    what = f"training step, batch {settings.batch}{suffix}"
    steps = {OURS: training_step(ours, settings, batch, OURS)}
    steps[DETECTRON2] = training_step(theirs, settings, batch, DETECTRON2)
    if settings.torchvision and variant is None:
        peer = build_torchvision(settings).train()
        steps[TORCHVISION] = _torchvision_step(peer, settings, batch)
    bench.time(task, what, steps, note=f"forward, backward, {settings.cfg.SOLVER.OPTIMIZER}")
    del theirs, ours, steps
    if variant is None:
        bench.memory(
            task, what, settings, note="of the second step, with the state of the optimizer"
        )


def _differences(
    task: str, theirs: Any, ours: Any, batch: list[dict[str, Any]]
) -> tuple[dict[str, float], dict[str, float]]:
    # Copied before the first step, which changes the loss's normaliser and batch norms' statistics.
    unused = copy.deepcopy(theirs)
    with full_precision():
        their_losses, their_gradients = _losses_and_gradients(theirs, batch)
        our_losses, our_gradients = _losses_and_gradients(ours, batch)
        return compare_losses(task, their_losses, our_losses), compare_parameter_gradients(
            task, their_gradients, our_gradients, lambda: _rounded_gradients(unused, batch)
        )


def _losses_and_gradients(
    model: Any, batch: list[dict[str, Any]]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    model.train()
    with EventStorage():
        losses = model(batch)
    sum(losses.values()).backward()
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad(set_to_none=True)
    return losses, gradients


@torch.no_grad()
def _round_weights(model: nn.Module) -> None:
    generator = torch.Generator().manual_seed(0)
    for x in model.parameters():
        noise = torch.randn(x.shape, generator=generator).to(x)
        x.mul_(noise.mul_(ROUNDING).add_(1))


def _rounded_gradients(model: nn.Module, batch: list[dict[str, Any]]) -> dict[str, Tensor]:
    _round_weights(model)
    return _losses_and_gradients(model, batch)[1]


def training_step_work(settings: Settings, side: str) -> Work:
    """A training step of one side, with random weights."""
    model = build_side(settings, side)
    return training_step(model, settings, make_batch(settings, settings.batch), side)


def training_step(
    model: Any, settings: Settings, batch: list[dict[str, Any]], side: str = OURS
) -> Work:
    """A training step of Detectron2's model or ours, in the settings' precision.

    Args:
        model: of either side.
        settings: of the work.
        batch: inputs of the model.
        side: whose optimizer it is, DETECTRON2 or OURS.
    """
    model.train()

    def losses() -> dict[str, Tensor]:
        with EventStorage():
            return model(batch)

    build = build_optimizer if side == OURS else _build_detectron2_optimizer
    return _step(model, build(slow_learning(settings.cfg), model), settings, losses)


def _build_detectron2_optimizer(cfg: CfgNode, model: nn.Module) -> torch.optim.Optimizer:
    """The config's optimizer as Detectron2 builds it: SGD by its own function, AdamW lazily."""
    if cfg.SOLVER.OPTIMIZER == "SGD":
        return build_sgd(cfg, model)
    optimizer = lazy_optimizer(cfg)
    optimizer.params.model = model
    return instantiate(optimizer)


def _step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    settings: Settings,
    losses: Callable[[], dict[str, Tensor]],
) -> Work:
    precision, device = settings.precision, settings.device
    scaler = torch.amp.GradScaler(device, enabled=precision == "float16")

    def step() -> None:
        with products(precision):
            with autocast(precision, device):
                total = sum(losses().values(), torch.zeros((), device=device))
            scaler.scale(total).backward()
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad(set_to_none=True)

    return step


def _torchvision_step(model: Any, settings: Settings, batch: list[dict[str, Any]]) -> Work:
    images, targets = torchvision_inputs(batch, settings.device)
    optimizer = _build_detectron2_optimizer(slow_learning(settings.cfg), model)
    return _step(model, optimizer, settings, lambda: model(images, targets))


def slow_learning(cfg: CfgNode) -> CfgNode:
    """The config with a learning rate that leaves the weights as they are, but for rounding."""
    cfg = cfg.clone()
    cfg.defrost()
    cfg.SOLVER.BASE_LR = SMALL_LEARNING_RATE
    return cfg
