"""Threads that share the cores of a CPU, each computing what it is given from beginning to end.

PyTorch splits each single operation between its threads and waits for all of them at its end. Where
operations are short, that wastes much of the second core, and more as soon as another process wants
one. Threads that each take a whole piece of work meet only where it ends.
"""

from __future__ import annotations

import functools
import os
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import torch

__all__ = ["threads_side_by_side"]


@functools.lru_cache(maxsize=4)
def threads_side_by_side(count: int, each: int = 1) -> ThreadPoolExecutor:
    """``count`` threads, each of which splits PyTorch's operations between ``each`` of its own.

    They are started once, and kept. What runs in them must not wait for another one of them.
    """
    pool = ThreadPoolExecutor(count, thread_name_prefix="retinanet_ext")
    all_started = Barrier(count)
    before = torch.get_num_threads()

    def start() -> None:
        torch.get_num_threads()  # lets PyTorch prepare the thread, which would undo the next line
        torch.set_num_threads(each)
        all_started.wait()

    for future in [pool.submit(start) for _ in range(count)]:
        future.result()
    # The number belongs to each thread, except for a copy from which later threads take theirs.
    torch.set_num_threads(before)
    return pool


# A forked process, such as a data loader's worker, has none of its parent's threads.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=threads_side_by_side.cache_clear)
