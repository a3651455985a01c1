"""Writers of a run's curves, which a resumed run continues without doubles or gaps."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
from collections.abc import Callable
from itertools import count

from detectron2.utils.events import (
    EventStorage,
    EventWriter,
    TensorboardXWriter,
    get_event_storage,
)

from ...files import dump_json, write_text

__all__ = ["MetricsFile", "ResumableWriter", "TensorBoard", "back_up", "unwritten"]

WINDOW = 20  # iterations that a noisy scalar is the median of, as in Detectron2

logger = logging.getLogger(__name__)


def unwritten(storage: EventStorage, last_write: int) -> list[tuple[int, dict[str, float]]]:
    """Scalars put after iteration ``last_write``: (iteration, {name: value}), oldest first.

    A scalar with Detectron2's smoothing hint is the median of its last :data:`WINDOW` iterations.
    """
    lines: dict[int, dict[str, float]] = {}
    for name, (value, iteration) in storage.latest_with_smoothing_hint(WINDOW).items():
        if iteration > last_write:
            lines.setdefault(iteration, {})[name] = float(value)
    return sorted(lines.items())


def back_up(path: str) -> None:
    """Rename a file that an earlier run left to ``<name>_<n><ext>`` with the first free n.

    Raises:
        OSError: it cannot be renamed.
    """
    if not os.path.exists(path) or os.path.getsize(path) == 0:
        return
    aside = free_name(path)
    os.replace(path, aside)
    logger.info("%s of an earlier run is kept as %s", path, os.path.basename(aside))


def free_name(path: str) -> str:
    """``<name>_<n><ext>`` with the first n from 1 that no file has."""
    stem, ext = os.path.splitext(path)
    return next(p for n in count(1) if not os.path.exists(p := f"{stem}_{n}{ext}"))


class ResumableWriter(EventWriter):
    """One of Detectron2's writers that is given where a run begins."""

    def start(self, written: int | None) -> None:
        """Called once, before the first write.

        Args:
            written: the last iteration whose values this writer holds for good. Later ones come
                again, so what it holds of them is to be removed. None is a run that starts from
                its beginning.
        """
        raise NotImplementedError


class MetricsFile(ResumableWriter):
    """One json object per line, as Detectron2's ``JSONWriter`` writes, which a resume continues.

    ``{"iteration": 19, "loss_cls": 0.42, ...}``, keys sorted. Where Detectron2 writes ``NaN`` or
    ``Infinity``, which are no JSON, this writes ``null``. Iterations rise from line to line. What
    could not be written is kept in memory and written later; a kill before that loses it.
    """

    def __init__(self, path: str | os.PathLike):
        """
        Args:
            path: a local file. Without :meth:`start`, lines are added at its end.
        """
        self.path = os.fspath(path)
        self._last_write = -1
        self._size: int | None = None  # bytes of whole lines; None: to be prepared
        self._prepare: Callable[[], None] = lambda: None
        self._pending: list[str] = []

    def start(self, written: int | None) -> None:
        """Remove the lines that come again; an earlier run's file is renamed, not continued.

        A last line that a kill cut off is removed too. The file is replaced in one step. Where
        other lines are damaged, a warning names the file, which is kept under another name.
        """
        self._size = None
        if written is None:
            self._last_write = -1
            self._prepare = lambda: back_up(self.path)
        else:
            self._last_write = written
            self._prepare = lambda: self._cut(written)
        self._open()

    def write(self) -> None:
        """Append a line for each iteration with new scalars."""
        for iteration, scalars in unwritten(get_event_storage(), self._last_write):
            self._last_write = iteration
            line = {**scalars, "iteration": iteration}
            self._pending.append(dump_json(line, sort_keys=True) + "\n")
        self._append()

    def close(self) -> None:
        """Try once more to write what could not be written."""
        self._append()

    def _open(self) -> int:
        """Prepare the file if that is still to be done; return the size of its whole lines."""
        if self._size is None:
            self._prepare()
            self._size = os.path.getsize(self.path) if os.path.exists(self.path) else 0
        return self._size

    def _append(self) -> None:
        if not self._pending:
            return
        size = self._open()
        # Opened again each time: after an error, an open file may fail for good.
        with open(self.path, "ab", buffering=0) as file:
            file.truncate(min(size, os.path.getsize(self.path)))  # half a line of a failed write
            data = memoryview("".join(self._pending).encode())
            while data:
                data = data[file.write(data) :]
            os.fsync(file.fileno())
            self._size = file.tell()
        self._pending.clear()

    def _cut(self, written: int) -> None:
        """Keep the whole lines up to iteration ``written``."""
        if not os.path.exists(self.path):
            return
        with open(self.path, "rb") as file:
            lines = file.readlines()
        kept = [line for line in lines if 0 <= _iteration(line) <= written]
        damaged = [n for n, x in enumerate(lines, 1) if _iteration(x) < 0 and x.endswith(b"\n")]
        if damaged:
            aside = free_name(self.path)
            shutil.copyfile(self.path, aside)
            logger.warning(
                "%s has %d damaged line(s), the first is line %d: the file is kept as %s, and the "
                "%d intact lines are continued",
                self.path,
                len(damaged),
                damaged[0],
                os.path.basename(aside),
                len(kept),
            )
        if len(kept) < len(lines):
            write_text(self.path, b"".join(kept).decode())


def _iteration(line: bytes) -> int:
    """Iteration of a line; -1 if it is not whole."""
    if not line.endswith(b"\n"):
        return -1
    try:
        return int(json.loads(line)["iteration"])
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return -1


class TensorBoard(TensorboardXWriter, ResumableWriter):
    """Detectron2's TensorBoard writer, which a resume continues.

    Event files cannot be cut, so TensorBoard is made to leave out what comes again and what an
    earlier run left in the folder. After an error on the disk, some points may be missing.
    """

    def __init__(self, log_dir: str | os.PathLike):
        """
        Args:
            log_dir: folder of the event files; they are made when there is something to write.
        """
        self._log_dir = os.fspath(log_dir)
        self._failed = False
        super().__init__(self._log_dir, window_size=WINDOW)

    def start(self, written: int | None) -> None:
        """Have TensorBoard leave out what was added after iteration ``written``."""
        last = -1 if written is None else written
        super().__init__(self._log_dir, window_size=WINDOW, purge_step=last + 1)
        self._last_write = last

    def write(self) -> None:
        """Add the new scalars, pictures and histograms."""
        if self._failed:  # the old file's thread has ended
            self._give_up_file()
            self.start(self._last_write)
            self._failed = False
        try:
            super().write()
        except OSError:
            self._failed = True
            raise

    def close(self) -> None:
        """Write what is left."""
        if self._failed:
            self._give_up_file()
        else:
            super().close()

    def _give_up_file(self) -> None:
        with contextlib.suppress(OSError):
            super().close()
        self.__dict__.pop("_writer", None)
