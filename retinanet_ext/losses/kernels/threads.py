"""Work on CPU cores side by side, each item by one thread from beginning to end.

PyTorch splits each single operation between its threads and waits for all of them at its end. With
thousands of short operations that is slow as soon as another process wants a core: every end waits
for the slowest. Here threads meet once, at the end of all the items.
"""

from __future__ import annotations

import functools
import itertools
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any, TypeVar

import torch

T = TypeVar("T")


def parallel_map(items: Sequence[Any], make_worker: Callable[[], Callable[[Any], T]]) -> list[T]:
    """Results of the items, in their order, by as many threads as PyTorch has.

    Nothing that a worker computes has a gradient. An error in a worker is raised here.

    Args:
        items: each is taken by the next thread that is free.
        make_worker: called once per thread, for what the thread reuses; its result is called with
            one item after another.
    """
    count = min(torch.get_num_threads(), len(items))
    if count < 2 or torch.compiler.is_compiling():
        with torch.no_grad():
            worker = make_worker()
            return [worker(item) for item in items]
    results: list[Any] = [None] * len(items)
    upcoming = itertools.count()  # its next() is a single step of the interpreter
    inference = torch.is_inference_mode_enabled()  # known to each thread for itself

    def run() -> None:
        with torch.inference_mode(inference), torch.no_grad():
            worker = make_worker()
            while (i := next(upcoming)) < len(items):
                results[i] = worker(items[i])

    runs = [_threads(torch.get_num_threads()).submit(run) for _ in range(count)]
    for future in runs:
        future.result()
    return results


@functools.lru_cache(maxsize=1)
def _threads(count: int) -> ThreadPoolExecutor:
    """``count`` threads in which PyTorch's operations are not split."""
    pool = ThreadPoolExecutor(count, thread_name_prefix="retinanet_ext")
    all_started = Barrier(count)

    def start() -> None:
        torch.get_num_threads()  # lets PyTorch prepare the thread, which would undo the next line
        torch.set_num_threads(1)
        all_started.wait()

    for future in [pool.submit(start) for _ in range(count)]:
        future.result()
    # The number belongs to each thread, except for a copy from which later threads take theirs.
    torch.set_num_threads(count)
    return pool


# A forked process, such as a data loader's worker, has none of its parent's threads.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_threads.cache_clear)
