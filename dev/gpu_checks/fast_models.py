"""Section "fast": training step and inference of whole models beside Detectron2's."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import torch

from retinanet_ext.benchmark.inputs import make_batch
from retinanet_ext.benchmark.measure import peak_memory, timed_rounds
from retinanet_ext.benchmark.peers import (
    COMPILED,
    DETECTRON2,
    GRAPHS,
    OURS,
    build_pair,
    build_side,
)
from retinanet_ext.benchmark.settings import Settings
from retinanet_ext.benchmark.tasks.inference import detect
from retinanet_ext.benchmark.tasks.training_step import training_step
from retinanet_ext.modeling.speedups.settings import Speedups

from .cases import settings_of, small_or
from .report import Job

__all__ = ["AHEAD", "compile_ahead", "measure_inference", "measure_training"]


@dataclass(frozen=True)
class Way:
    """One way to compute on our side."""

    name: str
    keys: dict[str, Any] = field(default_factory=dict)
    sparse: bool = False  # the box subnet around the positives only, as on the CPU


PLAIN = Way("plain")
NONE = Way("contiguous", {"MODEL.SPEEDUPS.CHANNELS_LAST": "none"})
UNFOLDED = Way("norms not folded", {"MODEL.SPEEDUPS.FOLD_FROZEN_BN": False})
SPARSE = Way("sparse boxes", sparse=True)
COMPILE = Way("compiled", COMPILED.keys)
GRAPH = Way("graphs", GRAPHS.keys)

# What is measured: precision, batch, ways. The most wanted first; the end may find no time left.
TRAINING: tuple[tuple[str, int, tuple[Way, ...]], ...] = (
    ("tf32", 2, (PLAIN, NONE, UNFOLDED, SPARSE)),
    ("bfloat16", 2, (PLAIN, UNFOLDED, COMPILE, GRAPH)),
    ("float32", 2, (PLAIN, NONE, SPARSE)),
    ("bfloat16", 8, (PLAIN, GRAPH)),
    ("tf32", 8, (PLAIN, NONE)),
    ("float16", 2, (PLAIN,)),
    ("bfloat16", 16, (PLAIN,)),
    ("float32", 8, (PLAIN, NONE)),
)
INFERENCE: tuple[tuple[str, int, tuple[Way, ...]], ...] = (
    ("tf32", 1, (PLAIN, NONE)),
    ("bfloat16", 1, (PLAIN, COMPILE, GRAPH)),
    ("bfloat16", 8, (PLAIN, GRAPH)),
    ("tf32", 8, (PLAIN, NONE)),
    ("float32", 1, (PLAIN, NONE)),
    ("float16", 1, (PLAIN,)),
    ("bfloat16", 16, (PLAIN,)),
)


def _compiled(cases: Sequence[tuple[str, int, tuple[Way, ...]]]) -> list[tuple[str, int, Way]]:
    key = "MODEL.SPEEDUPS.COMPILE"
    return [(case[0], case[1], way) for case in cases for way in case[2] if key in way.keys]


# Compiled before anything is timed, several at once, into PyTorch's cache on disk.
AHEAD = {"training": _compiled(TRAINING), "inference": _compiled(INFERENCE)}

Make = Callable[[Any, list[dict[str, Any]], Settings], Callable[[], Any]]


def _training_work(
    model: Any, batch: list[dict[str, Any]], settings: Settings
) -> Callable[[], Any]:
    return training_step(model, settings, batch)


def _inference_work(
    model: Any, batch: list[dict[str, Any]], settings: Settings
) -> Callable[[], Any]:
    return detect(model, batch, settings)


def measure_training(job: Job) -> None:
    """Forward, backward and SGD."""
    _measure(job, "training step", TRAINING, _training_work)


def measure_inference(job: Job) -> None:
    """From images to detections."""
    _measure(job, "inference", INFERENCE, _inference_work)


def compile_ahead(job: Job, kind: str, index: int) -> None:
    """Run one compiled way once, so that a later process finds its code in the cache."""
    precision, batch_size, way = AHEAD[kind][index]
    settings = settings_of(job, batch_size).with_precision(precision)
    model = build_side(settings.with_keys(way.keys), OURS)
    make = _training_work if kind == "training" else _inference_work
    work = make(model, make_batch(settings, batch_size), settings)
    for _ in range(2):
        work()


def _measure(
    job: Job, what: str, cases: Sequence[tuple[str, int, tuple[Way, ...]]], make: Make
) -> None:
    theirs, ours = build_pair(settings_of(job))
    for precision, batch_size, ways in small_or(job, cases, cases[:3]):
        if job.device == "cpu" and precision in ("tf32", "float16"):
            continue
        name = f"{what}, {precision}, batch {batch_size}"
        if not job.has_time(name):
            continue
        settings = settings_of(job, batch_size).with_precision(precision)
        batch = make_batch(settings, batch_size)
        works = {DETECTRON2: make(theirs, batch, settings)}
        for way in ways:
            with job.guarded(f"{name}, {way.name}"):
                works[way.name] = _work_of(way, ours, batch, settings, make)
                works[way.name]()
        with job.guarded(name):
            _tell_times(job, name, works, batch_size)
        works.clear()
        torch.cuda.empty_cache()


def _work_of(
    way: Way, ours: Any, batch: list[dict[str, Any]], settings: Settings, make: Make
) -> Callable[[], Any]:
    if way.keys:
        model = build_side(settings.with_keys(way.keys), OURS)
        model.load_state_dict(ours.state_dict())
        return make(model, batch, settings)
    work = make(ours, batch, settings)
    if not way.sparse:
        return work

    def sparse() -> Any:
        with mock.patch.object(Speedups, "sparse_boxes", lambda self, features: True):
            return work()

    return sparse


def _tell_times(job: Job, name: str, works: dict[str, Callable[[], Any]], batch_size: int) -> None:
    samples = timed_rounds(works, small_or(job, 7, 1), job.device)
    seconds = {side: statistics.median(times) for side, times in samples.items()}
    memory = {}
    if job.device == "cuda":
        memory = {side: peak_memory(work, job.device).num_bytes for side, work in works.items()}
    for side in works:
        if side != DETECTRON2:
            both = [memory[x] for x in (DETECTRON2, side)] if memory else []
            times = seconds[DETECTRON2], seconds[side]
            job.tell_pair(f"{name}, {side}", times, both, images=batch_size)
