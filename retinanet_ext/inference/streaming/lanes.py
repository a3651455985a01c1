"""Batches that go through the network side by side, each on its share of a CPU's cores."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, wait
from typing import Any, TypeVar

import torch

from ...cores import threads_side_by_side

__all__ = ["in_lanes", "num_lanes", "results_ahead"]

MOST_LANES = 4
"""Python's part of the work, which one thread at a time does, would keep more of them waiting."""

Item = TypeVar("Item")
Result = TypeVar("Result")


def num_lanes(detector: Any, batch_size: int) -> int:
    """How many batches are computed at once, that hold ``batch_size`` pictures together.

    Args:
        detector: whose calls may overlap if it says so, see ``PlainDetector.overlaps``.
        batch_size: pictures that go through the network at once.
    """
    if not getattr(detector, "overlaps", False):
        return 1
    return min(MOST_LANES, torch.get_num_threads(), batch_size)


def in_lanes(
    compute: Callable[[Item], Result], items: Iterable[Item], lanes: int
) -> Iterator[Result]:
    """The results of items, in their order, so many of them computed at once.

    One more item than are computed waits for its turn, so that no core waits while the caller uses
    a result.

    Args:
        compute: may raise; the error comes in the place of its result.
        items: may be endless.
        lanes: threads that compute; 1 computes in the caller's, when a result is asked for.
    """
    if lanes < 2:
        yield from map(compute, items)
        return
    pool = threads_side_by_side(lanes, max(1, torch.get_num_threads() // lanes))
    # The caller's precision is known to its own thread only.
    mixed, dtype = torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu")

    def in_lane(item: Item) -> Result:
        with torch.autocast("cpu", dtype, mixed):
            return compute(item)

    yield from results_ahead(pool, in_lane, items, lanes + 1)


def results_ahead(
    pool: Executor, compute: Callable[[Item], Result], items: Iterable[Item], ahead: int
) -> Iterator[Result]:
    """The results of items, in their order, computed by a pool before they are asked for.

    Args:
        pool: of threads.
        compute: may raise; the error comes in the place of its result.
        items: may be endless; only as many are taken as are computed.
        ahead: so many at most, at least 1.
    """
    iterator = iter(items)
    waiting: deque[Future[Result]] = deque()
    try:
        while True:
            for item in itertools.islice(iterator, ahead - len(waiting)):
                waiting.append(pool.submit(compute, item))
            if not waiting:
                return
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()
        wait(waiting)
