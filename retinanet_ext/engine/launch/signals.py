"""Handlers of the signals that ask a process to stop, before, around and after a training."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

from torch.multiprocessing import ProcessExitedException

from ...errors import TrainingFailed
from .deferred import is_deferred

__all__ = ["exit_code", "forwarded_signals", "install", "quiet_signals", "restore"]

INTERRUPTED = 130
"""Exit code after SIGINT: 128 + 2, as shells have it."""

# SIGUSR1: what Slurm is often set to send (--signal=USR1@120) some time before it kills.
# SIGHUP: what a terminal sends that is closed; under nohup it is ignored, and stays so.
_NAMES = ("SIGTERM", "SIGINT", "SIGUSR1", "SIGHUP")
_SIGNALS = [getattr(signal, x) for x in _NAMES if hasattr(signal, x)]


def install(handler: Callable[[int, FrameType | None], Any]) -> dict[int, Any]:
    """Set ``handler`` for the signals that are not ignored; return the handlers of before."""
    old: dict[int, Any] = {}
    for number in _SIGNALS:
        before = signal.getsignal(number)
        # As nohup and the shell do for what runs in the background.
        if before is not signal.SIG_IGN:
            old[number] = before
            signal.signal(number, handler)
    return old


def restore(old: dict[int, Any]) -> None:
    for number, handler in list(old.items()):
        # None: set by something that is not Python, which cannot be set again from here.
        signal.signal(number, signal.SIG_DFL if handler is None else handler)
    old.clear()


def exit_code(name: str) -> int:
    """Exit code of a process that saved after the signal ``name``."""
    return INTERRUPTED if name == "SIGINT" else 0


@contextlib.contextmanager
def quiet_signals() -> Iterator[None]:
    """Within the block, a signal that asks to stop ends the process by SystemExit, with clean-up.

    For what comes before and after training, which :class:`StopSignals` looks after. Processes that
    are forked meanwhile end with SIGTERM only: the others reach them with their parent, which ends
    them.

    Raises:
        SystemExit: with code 128 + n for the signal n, where it comes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    process = os.getpid()

    def stop(number: int, frame: FrameType | None) -> None:
        if os.getpid() == process:
            if is_deferred(number):
                return
            with contextlib.suppress(OSError):
                os.write(2, f"\n{signal.Signals(number).name}: stopped\n".encode())
            raise SystemExit(128 + number)
        if number == signal.SIGTERM:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    old = install(stop)
    try:
        yield
    finally:
        restore(old)


@contextlib.contextmanager
def forwarded_signals(active: bool = True) -> Iterator[None]:
    """Around Detectron2's ``launch``: pass signals on to the processes it starts, and outlive them.

    Args:
        active: whether ``launch`` starts processes; if not, this does nothing.

    Raises:
        TrainingFailed: a process ended by itself or was killed, not after a signal to this one.
        SystemExit: after a signal, with the exit code of the processes; 128 + n if the signal n
            killed one, as it does before training has begun, and at least 130 after SIGINT.
    """
    if not active or threading.current_thread() is not threading.main_thread():
        yield
        return
    forward = _Forward()
    forward.old = install(forward)
    try:
        yield
    except ProcessExitedException as failure:
        code = failure.exit_code
        if not forward.received and code != INTERRUPTED:
            raise TrainingFailed(_describe_exit(failure)) from failure
        raise SystemExit(code if code >= 0 else 128 - code) from None
    finally:
        restore(forward.old)
    if signal.SIGINT in forward.received:
        raise SystemExit(INTERRUPTED)


def _describe_exit(failure: ProcessExitedException) -> str:
    """How a process ended that raised nothing, and what to do."""
    name = failure.signal_name
    how = f"was killed by {name}" if name else f"ended with code {failure.exit_code}"
    memory = ", mostly since the machine's memory was full" if name == "SIGKILL" else ""
    return (
        f"process {failure.error_index} of this job {how}{memory}, so the others were ended; see "
        "log.txt and log.txt.rank* in OUTPUT_DIR, and continue with --resume"
    )


class _Forward:
    """A handler that sends signals to the child processes, or does as before if there are none.

    Those are the ones started since it was made: others, a data loader's workers perhaps, are not
    its own.
    """

    def __init__(self) -> None:
        self.old: dict[int, Any] = {}
        self.received: set[int] = set()
        self._process = os.getpid()
        self._others = {child.pid for child in multiprocessing.active_children()}

    def __call__(self, number: int, frame: FrameType | None) -> None:
        started = {child.pid for child in multiprocessing.active_children()} - self._others
        children = [pid for pid in started if pid]
        if not children or os.getpid() != self._process:  # the latter in a forked child
            restore({number: self.old[number]})
            signal.raise_signal(number)
            return
        self.received.add(number)
        for pid in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
