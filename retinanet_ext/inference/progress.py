"""How far a long job is: one line that is rewritten on a terminal, sparse lines elsewhere."""

from __future__ import annotations

import datetime
import shutil
import sys
import time
from collections.abc import Callable
from typing import TextIO

__all__ = ["Progress"]

ON_TERMINAL, ELSEWHERE = 0.2, 30.0
"""Seconds from one line to the next."""


class Progress:
    """Counts pictures and says how fast they are done, on the standard error output."""

    def __init__(
        self,
        total: int | None = None,
        quiet: bool = False,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        """
        Args:
            total: pictures there will be, if that is known.
            quiet: say nothing.
            stream: where to; standard error by default.
            clock: gives seconds.
        """
        self.total = total
        self.done = 0
        self.failed = 0
        self._stream = stream or sys.stderr
        self._quiet = quiet
        self._clock = clock
        self._in_place = self._stream.isatty()
        self._start = clock()
        self._said = self._start
        self._open = False

    @property
    def seconds(self) -> float:
        """Since the start."""
        return self._clock() - self._start

    @property
    def rate(self) -> float:
        """Pictures per second."""
        return (self.done + self.failed) / max(self.seconds, 1e-9)

    def step(self, failed: bool = False) -> None:
        """One more picture."""
        if failed:
            self.failed += 1
        else:
            self.done += 1
        if not self._quiet and self._clock() - self._said >= (
            ON_TERMINAL if self._in_place else ELSEWHERE
        ):
            self._said = self._clock()
            self._show()

    def line(self) -> str:
        """``120 of 1000 images, 14.2 images/s, 1:02 left, 3 failed``."""
        seen = self.done + self.failed
        rate = f"{self.rate:.3g} images/s"
        if self.total is None:
            words = [f"{seen} images", rate]
        else:
            left = max(0, self.total - seen) / max(self.rate, 1e-9)
            words = [f"{seen} of {self.total} images", rate, f"{_clock_time(left)} left"]
        return ", ".join([*words, *([f"{self.failed} failed"] if self.failed else [])])

    def end(self) -> None:
        """Leave the line of a terminal empty for what comes next."""
        if self._open:
            self._stream.write("\r\x1b[K")
            self._stream.flush()
            self._open = False

    def _show(self) -> None:
        if self._in_place:
            self._stream.write("\r\x1b[K" + self.line()[: shutil.get_terminal_size().columns - 1])
            self._open = True
        else:
            self._stream.write(self.line() + "\n")
        self._stream.flush()


def _clock_time(seconds: float) -> str:
    return str(datetime.timedelta(seconds=round(seconds))).removeprefix("0:")
