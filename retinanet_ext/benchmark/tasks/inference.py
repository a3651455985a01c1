"""Inference of a whole model: from images to detections."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..agreement import compare_detections
from ..inputs import make_batch
from ..measure import Work
from ..peers import (
    DETECTRON2,
    OURS,
    TORCHVISION,
    Variant,
    build_pair,
    build_torchvision,
    torchvision_inputs,
)
from ..precision import autocast, products
from ..runner import Benchmark
from ..settings import Settings
from .engines import EXACT, build_engines

__all__ = ["detect", "run_inference"]

LARGE_BATCH = 8


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
