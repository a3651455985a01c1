"""Tasks on whole models: a training step and inference, from images to the end."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.solver import build_optimizer
from detectron2.utils.events import EventStorage
from torch import Tensor, nn

from ..agreement import (
    compare_detections,
    compare_losses,
    compare_parameter_gradients,
)
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
from .engines import EXACT, build_engines

__all__ = ["run_inference", "run_training_step", "slow_learning", "training_step_work"]

LARGE_BATCH = 8

# Steps must not change the weights so much that the numbers overflow.
SMALL_LEARNING_RATE = 1e-6


def run_training_step(bench: Benchmark, variant: Variant | None = None) -> None:
    """Forward, backward and a step of SGD.

    Args:
        bench: takes the rows.
        variant: other config keys for our side; only the time is measured.
    """
    settings, suffix = bench.settings, "" if variant is None else f", {variant.name}"
    task = "training-step" if variant is None else f"training-step-{variant.name}"
    theirs, ours = build_pair(settings, settings.with_keys(variant.keys) if variant else None)
    batch = make_batch(settings, settings.batch)
    with full_precision():
        their_losses, their_gradients = _losses_and_gradients(theirs, batch)
        our_losses, our_gradients = _losses_and_gradients(ours, batch)
    bench.agree(
        task,
        compare_losses(task, their_losses, our_losses),
        compare_parameter_gradients(task, their_gradients, our_gradients),
    )
    del their_gradients, our_gradients
    what = f"training step, batch {settings.batch}{suffix}"
    steps = {OURS: training_step(ours, settings, batch)}
    steps[DETECTRON2] = training_step(theirs, settings, batch)
    if settings.torchvision and variant is None:
        peer = build_torchvision(settings).train()
        steps[TORCHVISION] = _torchvision_step(peer, settings, batch)
    bench.time(task, what, steps, note="forward, backward, SGD")
    del theirs, ours, steps
    if variant is None:
        bench.memory(task, what, settings, note="of the second step, with the momentum")


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


def training_step_work(settings: Settings, side: str) -> Work:
    """A training step of one side, with random weights."""
    model = build_side(settings, side)
    return training_step(model, settings, make_batch(settings, settings.batch))


def training_step(model: Any, settings: Settings, batch: list[dict[str, Any]]) -> Work:
    """A training step of Detectron2's model or ours, in the settings' precision."""
    model.train()

    def losses() -> dict[str, Tensor]:
        with EventStorage():
            return model(batch)

    return _sgd_step(model, settings, losses)


def _sgd_step(
    model: nn.Module, settings: Settings, losses: Callable[[], dict[str, Tensor]]
) -> Work:
    optimizer = build_optimizer(slow_learning(settings.cfg), model)
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
    return _sgd_step(model, settings, lambda: model(images, targets))


def slow_learning(cfg: CfgNode) -> CfgNode:
    """The config with a learning rate that leaves the weights as they are, but for rounding."""
    cfg = cfg.clone()
    cfg.defrost()
    cfg.SOLVER.BASE_LR = SMALL_LEARNING_RATE
    return cfg


def run_inference(bench: Benchmark, variant: Variant | None = None) -> None:
    """From images to detections: latency of one image, images per second of eight.

    Args:
        bench: takes the rows.
        variant: other config keys for our side; only the latency is measured.
    """
    settings = bench.settings
    task = "inference" if variant is None else f"inference-{variant.name}"
    suffix = "" if variant is None else f", {variant.name}"
    thresh = settings.cfg.MODEL.RETINANET.SCORE_THRESH_TEST
    limit = settings.cfg.TEST.DETECTIONS_PER_IMAGE
    theirs, ours = build_pair(settings, settings.with_keys(variant.keys) if variant else None)
    peer = build_torchvision(settings) if settings.torchvision and variant is None else None
    on_cpu, plain = settings.device == "cpu", settings.precision == "float32"
    by_engines = settings.engines and variant is None and on_cpu and plain
    for size in (1, LARGE_BATCH) if variant is None else (1,):
        batch = make_batch(settings, size)
        exact = settings.with_precision("float32")
        expected, found = (detect(model, batch, exact)() for model in (theirs, ours))
        bench.agree(task, compare_detections(task, expected, found, thresh, limit))
        works: dict[str, Work] = {OURS: detect(ours, batch, settings)}
        works[DETECTRON2] = detect(theirs, batch, settings)
        if peer is not None:
            pixels, _ = torchvision_inputs(batch, settings.device)
            works[TORCHVISION] = _torchvision_detect(peer, pixels, settings)
        what = f"inference, batch {size}{suffix}"
        images = size if size > 1 else 0
        with contextlib.ExitStack() as stack:
            absent: dict[str, str] = {}
            if by_engines and size == 1:
                folder = stack.enter_context(tempfile.TemporaryDirectory())
                engines = build_engines(settings, ours, folder, bench.say)
                for name, model in engines.models.items():
                    work = detect(model, batch, settings)
                    if name in EXACT:
                        compared = compare_detections(task, expected, work(), thresh, limit)
                        bench.agree(task, compared)
                    works[engines.named(name)] = work
                absent = {engines.named(name): why for name, why in engines.absent.items()}
            bench.time(task, what, works, images=images, absent=absent)


def detect(model: Any, batch: list[dict[str, Any]], settings: Settings) -> Callable[[], list[Any]]:
    """Detections of Detectron2's model or ours, in the settings' precision.

    From the images on the CPU to boxes in their pixels on the device.
    """
    model.eval()

    @torch.no_grad()
    def work() -> list[Any]:
        with products(settings.precision), autocast(settings.precision, settings.device):
            return [output["instances"] for output in model(batch)]

    return work


def _torchvision_detect(model: Any, images: list[Tensor], settings: Settings) -> Work:
    model.eval()

    @torch.no_grad()
    def work() -> list[Any]:
        with products(settings.precision), autocast(settings.precision, settings.device):
            return model(images)

    return work
