"""Maps a function over jobs in several processes, with a progress bar on a terminal."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import TypeVar

from tqdm import tqdm

__all__ = ["map_in_processes"]

Job = TypeVar("Job")
Result = TypeVar("Result")

MIN_JOBS = 64  # below this, starting processes costs more than it saves
CHUNK = 8
MARK = "RETINANET_EXT_IN_POOL"  # set in the environment of the processes started here

logger = logging.getLogger(__name__)


def map_in_processes(
    function: Callable[[Job], Result], jobs: Sequence[Job], description: str
) -> list[Result]:
    """Results of ``function`` for all ``jobs``, in order.

    Works in only this process when the jobs are few, when there is one CPU, inside a daemonic
    process (which may not have children), and when the pool breaks.

    Args:
        function: module-level function, so that it can be pickled; a job may run twice.
        jobs: picklable arguments.
        description: label of the progress bar, shown only when stderr is a terminal.

    Raises:
        RuntimeError: in a process of the pool itself, when a script without a main guard is
            imported there.
    """
    if os.environ.get(MARK):
        raise RuntimeError(
            "a process pool was started while the main script was imported by a worker; put the "
            "script's own code under: if __name__ == '__main__':"
        )
    workers = min(_count_cpus(), len(jobs) // (MIN_JOBS // 2))
    if workers > 1 and not multiprocessing.current_process().daemon:
        try:
            with _start_pool(workers) as pool:
                return _collect(pool.map(function, jobs, chunksize=CHUNK), jobs, description)
        except BrokenProcessPool as error:
            logger.warning("Working processes ended early (%s); going on with one.", error)
    return _collect(map(function, jobs), jobs, description)


@contextmanager
def _start_pool(workers: int) -> Iterator[ProcessPoolExecutor]:
    """A pool that starts at once on Linux (fork) and safely elsewhere (spawn)."""
    method = "fork" if sys.platform == "linux" else "spawn"
    os.environ[MARK] = "1"
    try:
        with warnings.catch_warnings():
            # Python 3.12 warns of fork beside threads. As in PyTorch's data loaders, the children
            # use none of what those threads hold.
            warnings.simplefilter("ignore", DeprecationWarning)
            context = multiprocessing.get_context(method)
            with ProcessPoolExecutor(workers, context, _follow_parent) as pool:
                try:
                    yield pool
                except BaseException:  # a signal, too: what waits is not worked on any more
                    pool.shutdown(wait=True, cancel_futures=True)
                    raise
    finally:
        del os.environ[MARK]


def _follow_parent() -> None:
    """End this process with its parent: a pool of a killed one would wait, and keep its locks.

    Ctrl-C and a closed terminal reach all processes; it is the parent that heeds them.
    """
    for name in ("SIGINT", "SIGHUP", "SIGUSR1"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def wait_and_exit() -> None:
        parent = multiprocessing.parent_process()
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=wait_and_exit, daemon=True).start()


def _collect(results: Iterator[Result], jobs: Sequence[Job], description: str) -> list[Result]:
    hidden = not sys.stderr.isatty()
    return list(tqdm(results, description, total=len(jobs), disable=hidden, leave=False))


def _count_cpus() -> int:
    """CPUs this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
