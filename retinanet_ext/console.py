"""What a run shows on the console: marked log lines, warnings, and one line of progress.

Any log line can be marked: ``logger.info("...", extra=SHOWN)``. The mark matters only to
:class:`ConsoleHandler`; files and other handlers get marked lines as any other.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TextIO

__all__ = [
    "PROGRESS",
    "SHOWN",
    "ConsoleHandler",
    "WithoutColors",
    "end_progress",
    "end_with_reader",
    "hushed",
    "wants_colors",
]

SHOWN = {"console": "line"}
"""``extra`` of a log line that a person should see."""

PROGRESS = {"console": "progress"}
"""``extra`` of a log line that on a terminal replaces the one before, if that has this mark too."""

_COLORS = re.compile(r"\x1b\[[0-9;]*m")
_YELLOW, _RED, _PLAIN = "\x1b[33m", "\x1b[31m", "\x1b[0m"
_CLEAR_LINE = "\r\x1b[K"


def wants_colors(stream: TextIO | None = None) -> bool:
    """Whether colour codes may be written: to a terminal, unless ``NO_COLOR`` is set.

    Args:
        stream: where to; standard output by default.
    """
    stream = sys.stdout if stream is None else stream
    return stream.isatty() and not os.environ.get("NO_COLOR")


class WithoutColors(logging.Formatter):
    """Another formatter's text without terminal colour codes."""

    def __init__(self, formatter: logging.Formatter | None = None):
        """
        Args:
            formatter: the other one; by default the message only.
        """
        super().__init__()
        self._formatter = formatter or logging.Formatter()

    def format(self, record: logging.LogRecord) -> str:
        return _COLORS.sub("", self._formatter.format(record))


class ConsoleHandler(logging.Handler):
    """Writes marked log lines, warnings and errors to standard output, without name and time.

    On a terminal, lines of progress are cut to its width and rewritten in place; elsewhere each is
    a line of its own.
    """

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.setFormatter(WithoutColors())
        self.hushed = 0
        """Blocks of :func:`hushed` that run now; above 0, only warnings are shown."""
        self._is_open = False  # whether the cursor is in a line of progress

    def emit(self, record: logging.LogRecord) -> None:
        """Write the line, unless it is neither marked nor a warning."""
        mark = getattr(record, "console", "")
        if record.levelno < logging.WARNING and (not mark or self.hushed):
            return
        try:
            stream = sys.stdout  # looked up each time: it may have been redirected
            in_place = mark == "progress" and stream.isatty()
            text = self.format(record)
            if in_place:
                text = text[: shutil.get_terminal_size().columns - 1]
            elif record.levelno >= logging.WARNING:
                text = _warning(record, text, wants_colors(stream))
            start = _CLEAR_LINE if self._is_open else ""
            stream.write(start + text + ("" if in_place else "\n"))
            stream.flush()
            self._is_open = in_place
        except Exception:
            self.handleError(record)

    def end_progress(self) -> None:
        """Go to a new line, if a terminal shows a line of progress as the last one."""
        if self._is_open:
            self._is_open = False
            sys.stdout.write("\n")
            sys.stdout.flush()

    def close(self) -> None:
        """See :meth:`end_progress`."""
        self.end_progress()
        super().close()


def end_with_reader(handlers: Iterable[logging.Handler]) -> None:
    """Have ``handlers`` of the console raise BrokenPipeError once nobody reads it any more.

    They do that once, all together, since what is done before the end logs, too. Without it, a
    handler shows a traceback for each line and the program continues.
    """
    raised: list[BaseException] = []

    def handle_error(handler: logging.Handler, record: logging.LogRecord) -> None:
        error = sys.exc_info()[1]
        if not isinstance(error, BrokenPipeError):
            type(handler).handleError(handler, record)
        elif not raised:
            raised.append(error)
            raise error

    for handler in handlers:
        handler.handleError = partial(handle_error, handler)  # type: ignore[method-assign]


def end_progress() -> None:
    """Call it before something is printed without a logger, see :class:`ConsoleHandler`."""
    for handler in _handlers():
        handler.end_progress()


@contextmanager
def hushed() -> Iterator[None]:
    """Within the block, the console shows only warnings; files get everything."""
    handlers = _handlers()
    for handler in handlers:
        handler.hushed += 1
    try:
        yield
    finally:
        for handler in handlers:
            handler.hushed -= 1


def _handlers() -> list[ConsoleHandler]:
    handlers = logging.getLogger(__name__.partition(".")[0]).handlers
    return [handler for handler in handlers if isinstance(handler, ConsoleHandler)]


def _warning(record: logging.LogRecord, text: str, colored: bool) -> str:
    word = "error" if record.levelno >= logging.ERROR else "warning"
    if not colored:
        return f"{word}: {text}"
    return f"{_RED if word == 'error' else _YELLOW}{word}:{_PLAIN} {text}"
