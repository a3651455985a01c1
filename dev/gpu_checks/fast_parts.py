"""Section "fast": losses, labelling and decoding, on the head's outputs."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from retinanet_ext.benchmark.measure import peak_memory, timed_rounds
from retinanet_ext.benchmark.peers import DETECTRON2, OURS
from retinanet_ext.benchmark.settings import Settings
from retinanet_ext.benchmark.tasks.components import (
    HeadCase,
    decode_works,
    labelling_work,
    loss_work,
)
from retinanet_ext.losses.kernels.dispatch import focal_loss_and_gradient

from .cases import settings_of, small_or
from .report import Job

__all__ = ["measure_parts"]


def measure_parts(job: Job) -> None:
    """All of it, in order of importance."""
    rate = bandwidth(job)
    for batch in small_or(job, (2, 8), (1,)):
        with job.guarded(f"loss, batch {batch}"):
            measure_loss(job, batch, rate)
    for num_gt in small_or(job, (20, 1000), (5,)):
        with job.guarded(f"labelling, {num_gt} objects"):
            settings = settings_of(job, batch=2).with_gt(num_gt)
            works = {side: labelling_work(settings, side) for side in (OURS, DETECTRON2)}
            compare(job, f"labelling, batch 2, {num_gt} objects an image", works)
    with job.guarded("decode"):
        for batch in small_or(job, (1, 8), (1,)):
            compare(job, f"decode, batch {batch}", decode_works(settings_of(job), batch))


def compare(job: Job, name: str, works: dict[str, Callable[[], Any]]) -> None:
    """Time and memory of both sides."""
    if not job.has_time(name):
        return
    samples = timed_rounds(works, 2 if job.tiny else 15, job.device)
    theirs, ours = (statistics.median(samples[side]) for side in (DETECTRON2, OURS))
    memory: list[int] = []
    if job.device == "cuda":
        sides = (works[DETECTRON2], works[OURS])
        memory = [peak_memory(work, job.device, 1).num_bytes for work in sides]
    job.tell_pair(name, (theirs, ours), memory)


def bandwidth(job: Job) -> float:
    """Bytes per second of a large copy on the device, read and written ones counted."""
    source = torch.empty(2**20 if job.tiny else 2**30, dtype=torch.float32, device=job.device)
    target = torch.empty_like(source)
    times = timed_rounds({"copy": lambda: target.copy_(source)}, 10, job.device)["copy"]
    rate = 2 * source.numel() * 4 / min(times)
    job.tell("bandwidth of a copy", text=f"{rate / 1e12:.2f} TB/s", bytes_per_second=rate)
    return rate


def measure_loss(job: Job, batch: int, rate: float) -> None:
    """The whole loss beside Detectron2's, and the focal kernel over its bandwidth floor."""
    settings: Settings = settings_of(job, batch=batch)
    works = {side: loss_work(settings, side) for side in (OURS, DETECTRON2)}
    compare(job, f"focal and box loss, forward + backward, batch {batch}", works)
    del works
    case = HeadCase.build(settings, OURS, batch)
    logits, _ = case.outputs(settings)
    labels, num_classes = case.targets.labels, case.targets.num_classes
    for dtype in (torch.float32, torch.bfloat16):
        levels = [x.to(dtype) for x in logits]
        for layout in (torch.contiguous_format, torch.channels_last):
            levels = [x.contiguous(memory_format=layout) for x in levels]

            kernel = focal_work(levels, labels, num_classes)
            seconds, how = device_seconds(job, kernel)
            size = sum(x.numel() * x.element_size() for x in levels)
            floor = 2 * size / rate
            host = statistics.median(timed_rounds({"k": kernel}, 10, job.device)["k"])
            layout_name = "channels_last" if layout == torch.channels_last else "contiguous"
            name = f"focal kernel, batch {batch}, {str(dtype)[6:]}, {layout_name}"
            job.tell(
                name,
                text=f"{seconds * 1e3:.3f} ms {how}, {seconds / floor:.2f}x the floor of "
                f"{floor * 1e3:.3f} ms; with Python {host * 1e3:.3f} ms",
                seconds=seconds,
                floor=floor,
                host_seconds=host,
            )


def focal_work(levels: list[Tensor], labels: Tensor, num_classes: int) -> Callable[[], Any]:
    """Loss and gradient."""
    return lambda: focal_loss_and_gradient(levels, labels, num_classes, 0.25, 2.0)


def device_seconds(job: Job, work: Callable[[], Any]) -> tuple[float, str]:
    """What the device takes: a replayed CUDA graph of the work, without Python's time."""
    if job.device != "cuda":
        return min(timed_rounds({"work": work}, 2, job.device)["work"]), "with Python"
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for _ in range(3):
            work()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    times = []
    for _ in range(20):
        start.record()
        graph.replay()
        end.record()
        torch.cuda.synchronize()
        times.append(start.elapsed_time(end) / 1e3)
    return statistics.median(times), "on the device"
