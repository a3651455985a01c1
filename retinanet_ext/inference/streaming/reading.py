"""Pictures read ahead while the model computes, in groups that make good batches."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Hashable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from ...errors import UserError, one_line
from ..pictures import Picture
from .lanes import results_ahead

__all__ = ["ReadPicture", "default_workers", "in_batches", "read_ahead"]

Read = Callable[[Picture], np.ndarray]
T = TypeVar("T")


@dataclass(frozen=True)
class ReadPicture:
    """A picture and its pixels, or why there are none.

    Attributes:
        picture: what was read.
        index: in the order of the sources.
        pixels: (H, W, C) uint8; None where it failed.
        error: what failed; None where nothing did.
        seconds: that reading took.
    """

    picture: Picture
    index: int
    pixels: np.ndarray | None
    error: Exception | None
    seconds: float

    @property
    def reason(self) -> str:
        """Why it could not be read, in one line."""
        if self.error is None:
            return ""
        known = isinstance(self.error, UserError)
        return one_line(self.error) if known else f"{type(self.error).__name__}: {self.error}"


def default_workers() -> int:
    """Threads that read: one for each core of this process, 4 at most."""
    has_affinity = hasattr(os, "sched_getaffinity")
    return min(4, len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1)


def read_ahead(
    pictures: Iterable[Picture], read: Read, workers: int, ahead: int
) -> Iterator[ReadPicture]:
    """Read pictures in threads, at most ``ahead`` of them before they are asked for.

    Args:
        pictures: may be endless; only as many are taken as are read.
        read: may raise; the error is in what is returned.
        workers: threads; 0 reads when asked.
        ahead: bounds the memory.

    Yields:
        In the order of ``pictures``.
    """

    def one(index: int, picture: Picture) -> ReadPicture:
        start = time.perf_counter()
        pixels, error = None, None
        try:
            pixels = read(picture)
        except Exception as caught:
            error = caught
        return ReadPicture(picture, index, pixels, error, time.perf_counter() - start)

    if workers < 1:
        yield from itertools.starmap(one, enumerate(pictures))
        return
    with ThreadPoolExecutor(workers, thread_name_prefix="read") as pool:
        numbered = enumerate(pictures)
        yield from results_ahead(pool, lambda pair: one(*pair), numbered, max(1, ahead))


def in_batches(
    items: Iterable[T], key: Callable[[T], Hashable | None], batch_size: int, window: int
) -> Iterator[list[T]]:
    """Group items of equal keys, as many as possible in each batch.

    Args:
        items: taken ``window`` at a time.
        key: None for an item that is a batch of its own.
        batch_size: at most so many in a batch.
        window: how far items may be moved; the results of one come together.

    Yields:
        Batches; within a window, those that begin first come first.
    """
    iterator = iter(items)
    while chunk := list(itertools.islice(iterator, max(1, window))):
        open_batches: dict[Hashable, list[T]] = {}
        batches: list[list[T]] = []
        for item in chunk:
            k = key(item)
            batch = None if k is None else open_batches.get(k)
            if batch is None or len(batch) >= batch_size:
                batch = []
                batches.append(batch)
                if k is not None:
                    open_batches[k] = batch
            batch.append(item)
        yield from batches
