"""Work on CPU cores side by side, each item by one thread from beginning to end.

Of thousands of short operations that PyTorch splits between its threads, every end would wait for
the slowest. Here threads meet once, at the end of all the items.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch

from ...cores import threads_side_by_side

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

    runs = [threads_side_by_side(torch.get_num_threads()).submit(run) for _ in range(count)]
    for future in runs:
        future.result()
    return results
