"""Signals that ask a run to stop: it saves after the iteration it is in, and leaves."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

import torch
from detectron2.engine import HookBase
from detectron2.utils import comm
from torch import distributed as dist

from ...console import SHOWN
from .deferred import is_deferred
from .signals import exit_code, install, restore

__all__ = ["StopHook", "StopSignals", "TrainingStopped"]

logger = logging.getLogger(__name__)

REPEAT_SECONDS = 1.0
"""A SIGINT so soon after another is the same one: Ctrl-C reaches a process by several ways."""

# The last of those that any process got is the one that all stop for.
_AGREED = ("", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGINT")


class TrainingStopped(SystemExit):
    """The end of a training that a signal stopped, all hooks' ``after_train`` included.

    Uncaught, it ends the process with code 0 for SIGTERM, SIGUSR1 and SIGHUP, 130 for SIGINT, and
    1 if the state could not be saved.
    """


class StopSignals:
    """Takes note of SIGTERM, SIGINT, SIGUSR1 and SIGHUP while it is entered, in the main thread.

    A second SIGINT raises KeyboardInterrupt. Signals that were ignored stay ignored. Processes that
    are forked meanwhile, as by data loaders, handle none of the four.
    """

    def __init__(self) -> None:
        self.received = ""
        """Name of the first signal; "" if there was none."""
        self.at_once = False
        """Whether a signal raises TrainingStopped where it comes: there is nothing to save."""
        self.is_entered = False
        self._old: dict[int, Any] = {}
        self._process = -1
        self._interrupted = 0.0  # when SIGINT came, in seconds; 0 if it has not

    def __enter__(self) -> StopSignals:
        self.is_entered, self._process = True, os.getpid()
        self.received, self._interrupted, self.at_once = "", 0.0, False
        if threading.current_thread() is threading.main_thread():
            self._old = install(self._take)
        return self

    def __exit__(self, *exc: object) -> None:
        self.is_entered = False
        restore(self._old)

    def _take(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process or is_deferred(number):
            return
        now = time.monotonic()
        if number == signal.SIGINT:
            if self._interrupted and now - self._interrupted > REPEAT_SECONDS:
                raise KeyboardInterrupt
            self._interrupted = self._interrupted or now
        if self.received:
            return
        self.received = signal.Signals(number).name
        if comm.is_main_process():
            again = "; Ctrl-C again stops at once" if number == signal.SIGINT else ""
            saved = "all is saved; stopping; add --resume to continue"
            what = saved if self.at_once else f"stopping with this step{again}"
            # Logging is not safe here: this may have interrupted it. After SIGHUP there may be no
            # terminal left to write to.
            with contextlib.suppress(OSError):
                os.write(2, f"\n{self.received}: {what}\n".encode())
        if self.at_once:
            raise TrainingStopped(exit_code(self.received))


class StopHook(HookBase):
    """End the training, saved, after the iteration in which any process got one of the signals.

    To be registered in all processes, after the hook that saves and before the one that evaluates:
    no evaluation is then begun after a signal. A signal during an evaluation ends it at once, where
    there is one process and its state is saved already; otherwise the next iteration.
    """

    def __init__(
        self,
        save: Callable[[str], str],
        is_saved: Callable[[], bool] = lambda: False,
        signals: StopSignals | None = None,
    ):
        """
        Args:
            save: called on all processes with the name of the signal; saves the state after this
                iteration, if need be, and returns the path of the file, or "" if that failed.
            is_saved: whether the state after this iteration is saved.
            signals: entered around the training, to handle signals until its very end; if they are
                not, from ``before_train`` to this hook's ``after_train``.
        """
        self.signals = signals or StopSignals()
        self._save = save
        self._is_saved = is_saved
        self._entered = False
        self._group: Any = None  # that of all processes

    def before_train(self) -> None:
        if not self.signals.is_entered:
            self._entered = True
            self.signals.__enter__()
        if comm.get_world_size() > 1 and dist.get_backend() != "gloo":
            self._group = dist.new_group(backend="gloo")
        # What other hooks do before the first step, an evaluation, can be had again.
        self.signals.at_once = comm.get_world_size() == 1

    def before_step(self) -> None:
        self.signals.at_once = False

    def after_step(self) -> None:
        """Stop if any process got a signal.

        Raises:
            TrainingStopped: in all processes alike, after the main one has saved.
        """
        name = self._agree()
        if not name:
            self.signals.at_once = comm.get_world_size() == 1 and self._is_saved()
            if not (self.signals.at_once and self.signals.received):
                return
            name = self.signals.received  # came between the two lines above
        self.signals.at_once = False
        path = self._save(name)
        # A process that ends with a code other than 0 makes the launcher end the others: not before
        # the main one has saved.
        path = comm.all_gather(path)[0]
        iteration = self.trainer.iter
        if not path:
            logger.error("%s: stopped at iteration %d, which is not saved", name, iteration)
            raise TrainingStopped(1)
        text = f"{name}: saved {path} at iteration {iteration}; add --resume to continue"
        logger.info("%s", text, extra=SHOWN)
        raise TrainingStopped(exit_code(name))

    def after_train(self) -> None:
        # What follows the last iteration, an evaluation, can be had again: its state is saved.
        self.signals.at_once = self.trainer.iter >= self.trainer.max_iter
        if self._entered:
            self._entered = False
            self.signals.__exit__()

    def _agree(self) -> str:
        """The signal to stop for, the same in all processes; "" if none got any."""
        name = self.signals.received
        if comm.get_world_size() == 1:
            return name
        # On the CPU, also where the processes are connected for GPUs, which then need not wait.
        code = torch.tensor(_AGREED.index(name), dtype=torch.int32)
        dist.all_reduce(code, op=dist.ReduceOp.MAX, group=self._group)
        return _AGREED[int(code)]
