"""Time in interleaved rounds, and peak memory of one piece of work."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch

__all__ = ["Clocked", "Peak", "clocked_rounds", "peak_memory", "timed_rounds"]

Work = Callable[[], object]

# fvcore's losses are TorchScript, which is optimised in the first calls.
WARM_UP_ROUNDS = 2
SLOW_ROUND = 10.0  # seconds
ENOUGH_SECONDS = 5.0
MIN_ROUNDS, MIN_SLOW_ROUNDS, MAX_ROUNDS = 5, 3, 50

SETTLED = 0.01
"""Seconds until OpenMP's threads, which after an operation wait for the next by computing, sleep. A
work with threads of its own would share cores with those of the work before, and pay for them."""


class Clocked(NamedTuple):
    """Seconds that one call took: by the clock, and of all of the process's threads on the CPU."""

    clock: float
    cpu: float


def timed_rounds(
    works: Mapping[str, Work], repeats: int | None, device: str
) -> dict[str, tuple[float, ...]]:
    """:func:`clocked_rounds`, by the clock."""
    rounds = clocked_rounds(works, repeats, device)
    return {name: tuple(one.clock for one in samples) for name, samples in rounds.items()}


def clocked_rounds(
    works: Mapping[str, Work], repeats: int | None, device: str
) -> dict[str, tuple[Clocked, ...]]:
    """Seconds that each work takes, one sample of every work per round.

    Interleaving spreads whatever else the machine does evenly over the works.

    Args:
        works: name -> work.
        repeats: rounds; None takes at least 5 (3 if one lasts 10 s) and continues for 5 s.
        device: "cpu" or "cuda".
    """
    start = time.perf_counter()
    _round(works, device)
    slow = time.perf_counter() - start > SLOW_ROUND
    for _ in range(0 if slow else WARM_UP_ROUNDS - 1):
        _round(works, device)
    gc.collect()
    rounds: list[dict[str, Clocked]] = []
    start = time.perf_counter()
    while not _enough(len(rounds), time.perf_counter() - start, repeats, slow):
        rounds.append(_round(works, device))
    return {name: tuple(one[name] for one in rounds) for name in works}


def _enough(rounds: int, seconds: float, repeats: int | None, slow: bool) -> bool:
    if repeats is not None:
        return rounds >= repeats
    if rounds < (MIN_SLOW_ROUNDS if slow else MIN_ROUNDS):
        return False
    return seconds > ENOUGH_SECONDS or rounds >= MAX_ROUNDS


def _round(works: Mapping[str, Work], device: str) -> dict[str, Clocked]:
    seconds = {}
    for name, work in works.items():
        _synchronize(device)
        time.sleep(SETTLED)
        start, cpu_start = time.perf_counter(), time.process_time()
        work()
        _synchronize(device)
        seconds[name] = Clocked(time.perf_counter() - start, time.process_time() - cpu_start)
    return seconds


def _synchronize(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


@dataclass(frozen=True)
class Peak:
    """Bytes above what was in use before the work, and how they were read."""

    num_bytes: int
    method: str


def peak_memory(work: Work, device: str, warm_ups: int = 0) -> Peak:
    """Run ``work`` and return its peak of memory above what was in use before the first call.

    On a CPU this is the process's resident memory, so call it in a process of its own. Linux can
    forget an earlier peak; elsewhere, memory that was in use before and freed since can hide a
    part of the work's, and the method says "lower bound".

    Args:
        work: called ``warm_ups`` times, then once more under observation.
        device: "cpu" or "cuda".
        warm_ups: calls before.
    """
    gc.collect()
    if device.startswith("cuda"):
        return _cuda_peak(work, device, warm_ups)
    _return_free_memory()
    resident, highest = _proc_status("VmRSS"), _highest_resident()
    for _ in range(warm_ups):
        work()
    if resident is not None and _forget_peak():
        work()
        return Peak(max((_proc_status("VmHWM") or 0) - resident, 0), "VmHWM")
    work()
    return Peak(max(_highest_resident() - highest, 0), "ru_maxrss, lower bound")


def _cuda_peak(work: Work, device: str, warm_ups: int) -> Peak:
    before = torch.cuda.memory_allocated(device)
    for _ in range(warm_ups):
        work()
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    work()
    torch.cuda.synchronize(device)
    peak = torch.cuda.max_memory_allocated(device)
    return Peak(peak - before, "torch.cuda.max_memory_allocated")


def _return_free_memory() -> None:
    """Let the C library give freed memory back, so that it does not count as in use."""
    with contextlib.suppress(AttributeError, OSError, TypeError):  # only glibc has it
        ctypes.CDLL(None).malloc_trim(0)


def _proc_status(key: str) -> int | None:
    """A size in bytes from /proc/self/status; None where there is no such file."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    sizes = [line.split()[1] for line in lines if line.startswith(f"{key}:")]
    return int(sizes[0]) * 1024 if sizes else None


def _forget_peak() -> bool:
    """Set VmHWM back to VmRSS; False where the system does not allow it."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def _highest_resident() -> int:
    """ru_maxrss in bytes; 0 on Windows, which has no such thing."""
    try:
        import resource
    except ImportError:
        return 0
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
