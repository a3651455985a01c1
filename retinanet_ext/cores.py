"""Threads that share the cores of a CPU, each computing what it is given from beginning to end.

PyTorch splits each single operation between its threads and waits for all of them at its end. Where
operations are short, that wastes much of the second core, and more as soon as another process wants
one. Threads that each take a whole piece of work meet only where it ends.
"""

from __future__ import annotations

import functools
import itertools
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any, TypeVar

import torch

__all__ = ["let_openmp_wait_briefly", "on_one_thread", "parallel_map", "threads_side_by_side"]

T = TypeVar("T")

SHARED_OUT = 2**17
"""Numbers per thread that PyTorch splits between its threads."""

_OF_THREAD = threading.local()  # `own`: whether it is one of these threads


def threads_side_by_side(count: int, each: int = 1) -> ThreadPoolExecutor:
    """``count`` threads, each of which splits PyTorch's operations between ``each`` of its own.

    They are started once, and kept. What runs in them may ask for threads itself, and gets others
    than its neighbours get.
    """
    own = getattr(_OF_THREAD, "own", False)
    return _started(count, each, threading.get_ident() if own else 0)


@functools.lru_cache(maxsize=16)
def _started(count: int, each: int, caller: int) -> ThreadPoolExecutor:
    pool = ThreadPoolExecutor(count, thread_name_prefix="retinanet_ext")
    all_started = Barrier(count)
    before = torch.get_num_threads()

    def start() -> None:
        torch.get_num_threads()  # lets PyTorch prepare the thread, which would undo the next line
        torch.set_num_threads(each)
        _OF_THREAD.own = True
        all_started.wait()

    for future in [pool.submit(start) for _ in range(count)]:
        future.result()
    # The number belongs to each thread, except for a copy from which later threads take theirs.
    torch.set_num_threads(before)
    return pool


def on_one_thread(work: Callable[[], T]) -> T:
    """The result of ``work``, whose operations PyTorch does not split between its threads.

    For short operations between those of another program: after one that is split, GNU OpenMP's
    threads compute for milliseconds while they wait for the next, on cores that it has threads for.
    """
    if torch.get_num_threads() == 1:
        return work()
    inference, gradients = torch.is_inference_mode_enabled(), torch.is_grad_enabled()

    def run() -> T:
        with torch.inference_mode(inference), torch.set_grad_enabled(gradients):
            return work()

    return threads_side_by_side(1).submit(run).result()


@functools.lru_cache(maxsize=1)
def let_openmp_wait_briefly() -> ThreadPoolExecutor:
    """Have PyTorch's threads leave their cores to others as soon as they have nothing to do.

    After each operation GNU OpenMP's threads wait for the next one by computing, for milliseconds,
    unless there are more of them than cores (``gomp_throttled_spin_count_var`` in libgomp's env.c).
    A thread of its own that has had as many once is enough for that; they sleep. It is for whole
    processes, and for those with long operations: to wake the threads again takes a while.

    Returns:
        That thread, which has to be kept.
    """
    threads = torch.get_num_threads()
    pool = threads_side_by_side(1, threads)
    pool.submit(lambda: torch.zeros(threads * SHARED_OUT).add_(1)).result()
    return pool


# A forked process, such as a data loader's worker, has none of its parent's threads.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_started.cache_clear)
    os.register_at_fork(after_in_child=let_openmp_wait_briefly.cache_clear)


def parallel_map(
    items: Sequence[Any], make_worker: Callable[[], Callable[[Any], T]], with_caller: bool = False
) -> list[T]:
    """Results of the items, in their order, by as many threads as PyTorch has.

    Nothing that a worker computes has a gradient. An error in a worker is raised here.

    Args:
        items: each is taken by the next thread that is free.
        make_worker: called once per thread, for what the thread reuses; its result is called with
            one item after another.
        with_caller: the calling thread takes items, too; PyTorch then splits its operations.
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

    pool = threads_side_by_side(torch.get_num_threads())
    runs = [pool.submit(run) for _ in range(count - with_caller)]
    if with_caller:
        run()
    for future in runs:
        future.result()
    return results
