"""Signal handling of the data loader's workers; reports a dead worker between steps.

Both protect the moment in which a run is asked to stop: workers then live until the main process
has saved, and the death of one interrupts no step half-way.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["defer_worker_errors", "init_worker", "waiting_for_batch"]

POLL_SECONDS = 1.0
"""How often a worker looks whether the main process lives."""


def init_worker(worker_id: int) -> None:
    """Leave signals to the main process, all but its own SIGTERM; a ``worker_init_fn``.

    Ctrl-C, Slurm and torchrun signal all processes of a job. A worker that ended there would take
    the batch with it that the main process needs to reach its next checkpoint. The worker ends when
    the main process says so or is gone.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    for name in ("SIGINT", "SIGUSR1", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    if not hasattr(signal, "sigtimedwait"):  # as on macOS
        return
    # A handler does not learn who sent a signal; sigtimedwait is, for signals that are blocked.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()


def _end_with(main_process: int) -> None:
    while True:
        # PyTorch ends a worker in this way where it does not end by itself.
        received = signal.sigtimedwait({signal.SIGTERM}, POLL_SECONDS)
        # A killed main process says nothing. What the worker has of it, such as ports, may be
        # needed by the run that is started in its place.
        if os.getppid() != main_process or (
            received is not None and received.si_pid == main_process
        ):
            os._exit(0)


class _ChildDeaths:
    """The process's handler of SIGCHLD around PyTorch's, which raises wherever Python just is."""

    def __init__(self) -> None:
        self.of_torch: Callable[[int, Any], Any] | None = None
        self.num_loaders = 0
        self.is_waiting = False
        self.is_pending = False

    def __call__(self, signum: int, frame: Any) -> None:
        self.is_pending = bool(self.num_loaders) and not self.is_waiting
        if self.of_torch is not None and not self.is_pending:
            self.of_torch(signum, frame)

    def install(self) -> None:
        if not hasattr(signal, "SIGCHLD"):
            return
        if threading.current_thread() is not threading.main_thread():
            return  # PyTorch has no handler there either: it looks every few seconds
        handler = signal.getsignal(signal.SIGCHLD)
        if handler is not self and callable(handler):
            self.of_torch = handler
            signal.signal(signal.SIGCHLD, self)


_worker_exits = _ChildDeaths()


@contextmanager
def defer_worker_errors() -> Iterator[None]:
    """Within, the death of a worker raises nothing but in :func:`waiting_for_batch`.

    PyTorch raises it wherever the main process is, and so in the middle of an optimizer's step: the
    weights would be half-way between two iterations. To be entered after workers were started.
    """
    _worker_exits.install()
    _worker_exits.num_loaders += 1
    try:
        yield
    finally:
        _worker_exits.num_loaders -= 1


@contextmanager
def waiting_for_batch() -> Iterator[None]:
    """Within, the death of a worker raises at once; also that of one that died before.

    Raises:
        RuntimeError: PyTorch's: ``DataLoader worker (pid 123) is killed by signal: Killed.``, or
            ``DataLoader worker (pid(s) 123) exited unexpectedly`` with the other as its cause.
    """
    _worker_exits.is_waiting = True
    try:
        if _worker_exits.is_pending:
            _worker_exits(signal.SIGCHLD, None)
        yield
    finally:
        _worker_exits.is_waiting = False
