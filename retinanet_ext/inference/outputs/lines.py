"""A file with one json object a line, which holds whole lines only, whatever ends the writer."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

from ...errors import InputError

__all__ = ["Lines", "cut_torn_line", "read_lines"]

SYNC_EVERY = 100


class Lines:
    """Appends json objects; each is with the system at once, and on the disk 100 lines later."""

    def __init__(self, path: str):
        """
        Args:
            path: of the file, which is made or continued.
        """
        self._file = open(path, "ab")  # noqa: SIM115 (close)
        self._unsynced = 0

    def add(self, record: dict[str, Any]) -> None:
        """Write one line."""
        self._file.write(json.dumps(record).encode() + b"\n")
        self._file.flush()
        self._unsynced += 1
        if self._unsynced >= SYNC_EVERY:
            self._sync()

    def close(self) -> None:
        """Bring the rest to the disk."""
        if not self._file.closed:
            self._sync()
            self._file.close()

    def _sync(self) -> None:
        os.fsync(self._file.fileno())
        self._unsynced = 0


def read_lines(path: str) -> Iterator[dict[str, Any]]:
    """The objects of the file.

    Raises:
        InputError: a line is no json object; names it.
    """
    with open(path, "rb") as file:
        for number, line in enumerate(file, start=1):
            record = _parsed(line)
            if record is None:
                raise InputError(f"'{path}' is damaged in line {number}, which is no json object")
            yield record


def cut_torn_line(path: str) -> bool:
    """Remove a last line that was not written to its end; whether there was one."""
    with open(path, "r+b") as file:
        start, last = 0, b""
        for line in file:
            start, last = start + len(last), line
        if not last or (last.endswith(b"\n") and _parsed(last) is not None):
            return False
        file.truncate(start)
        os.fsync(file.fileno())
    return True


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) else None
