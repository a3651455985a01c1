"""Files that are complete or not there, whatever happens while they are written, with checksums."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import stat
import uuid
from collections.abc import Callable, Iterator, Mapping
from typing import Any, BinaryIO

UNFINISHED = ".unfinished"
"""Ending of a file that is being written."""

CHECKSUM = ".sha256"
"""Ending of the file that holds the checksum of the one beside it, as ``sha256sum`` writes it."""


def write_checked(path: str, write: Callable[[Any], Any]) -> None:
    """Write ``path`` and, beside it, ``path.sha256``, which ``sha256sum -c`` can check.

    Whenever the process or the machine dies, ``path`` holds all of its old or all of its new
    content, and a checksum is there only beside the content that it belongs to.

    Args:
        path: a local file; its folder exists.
        write: is called with a binary file, open for writing, that cannot seek.

    Raises:
        OSError: the file cannot be written; what was there before still is, and nothing else.
    """
    new, checksum = f"{path}{UNFINISHED}", f"{path}{CHECKSUM}"
    new_checksum = f"{checksum}{UNFINISHED}"
    try:
        line = f"{_write_through(new, write)}  {os.path.basename(path)}\n"
        _write_through(new_checksum, lambda file: file.write(line.encode()))
        if os.path.exists(checksum):
            # It is not that of the new content, which it would make look damaged after a kill.
            os.remove(checksum)
            sync_folder(os.path.dirname(path))
        os.replace(new, path)
        os.replace(new_checksum, checksum)
    except BaseException:
        _remove_if_there(new, new_checksum)
        raise
    sync_folder(os.path.dirname(path))


def write_text(path: str, text: str, time_ns: int | None = None) -> None:
    """Write a small local file in one step that survives a crash of the machine.

    Args:
        path: of the file; its folder exists.
        text: the content.
        time_ns: when it counts as modified, in nanoseconds since the epoch; now by default.

    Raises:
        OSError: it cannot be written; what was there before still is.
    """
    with written_whole(path) as new:
        with open(new, "wb") as file:
            file.write(text.encode())
        if time_ns is not None:
            os.utime(new, ns=(time_ns, time_ns))


@contextlib.contextmanager
def written_whole(path: str) -> Iterator[str]:
    """Within the block, write to the file that is given; it then gets the name ``path``.

    Readers, and whoever looks after a kill or a crash of the machine, find all of the old or all of
    the new content. Several processes may write the same file at once: the last one's stays.

    Args:
        path: a local file; its folder exists.

    A link stays one, and the file that it leads to is written. Devices and pipes, such as
    ``/dev/null`` and ``/dev/stdout``, have no content that could be replaced: they are written to.

    Yields:
        A path beside it, which ends with ``UNFINISHED``, or that of the device.

    Raises:
        OSError: it cannot be written; what was there before still is, and nothing else.
    """
    if _is_device(path):
        yield path
        return
    target = os.path.realpath(path)
    new = f"{target}.{uuid.uuid4().hex[:8]}{UNFINISHED}"
    try:
        yield new
        with open(new, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(new, target)
    except BaseException as error:
        _remove_if_there(new)
        if isinstance(error, OSError) and error.filename == new:
            error.filename = path
        raise
    sync_folder(os.path.dirname(target))


def _is_device(path: str) -> bool:
    """Whether it is there and no file on a disk, or a link of the system to one that is open."""
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return False
    of_system = os.path.islink(path) and os.path.abspath(path).startswith(("/dev/", "/proc/"))
    return of_system or not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def dump_json(content: Any, indent: int | None = None, sort_keys: bool = False) -> str:
    """``content`` as JSON, by the rules of all files of this package.

    Numbers that are not finite, for which JSON has no word, become ``null``; tuples become lists,
    keys and what JSON does not know become text.

    Args:
        content: dicts, lists, numbers and text.
        indent, sort_keys: see :func:`json.dumps`.
    """
    return json.dumps(_plain(content), indent=indent, sort_keys=sort_keys, allow_nan=False)


def find_damage(path: str) -> str:
    """Compare a file with the checksum beside it.

    Returns:
        What is wrong, as in "... differs from its checksum"; "" if nothing is, or there is no
        checksum.

    Raises:
        OSError: a file cannot be read.
    """
    checksum = f"{path}{CHECKSUM}"
    if not os.path.exists(checksum):
        return ""
    with open(checksum, errors="replace") as text:
        expected = text.read().partition(" ")[0].strip().lower()
    if file_sha256(path) == expected:
        return ""
    return f"differs from its checksum in {os.path.basename(checksum)}"


def file_sha256(path: str) -> str:
    """SHA-256 of a file, in hexadecimal.

    Raises:
        OSError: it cannot be read.
    """
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def remove_checked(path: str) -> None:
    """Remove a file and its checksum.

    Raises:
        OSError: one of them cannot be removed.
    """
    # The checksum last: alone, it harms nothing.
    for each in (path, f"{path}{CHECKSUM}"):
        with contextlib.suppress(FileNotFoundError):
            os.remove(each)


def remove_unfinished(folder: str) -> None:
    """Remove what writers that were killed left in ``folder``; none may be at work there."""
    _remove_if_there(*(x.path for x in os.scandir(folder) if x.name.endswith(UNFINISHED)))


def sync_folder(folder: str) -> None:
    """Make renames in ``folder`` survive a crash, where the system can do that for a folder."""
    with contextlib.suppress(OSError):
        handle = os.open(folder or ".", os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(x) for key, x in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(x) for x in value]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    return value if value is None or isinstance(value, (str, int, bool)) else str(value)


def _write_through(path: str, write: Callable[[Any], Any]) -> str:
    """Write a file down to the disk and return its SHA-256."""
    with open(path, "wb") as file:
        sink = _HashingFile(file)
        write(sink)
        sink.flush()
        os.fsync(file.fileno())
    return sink.digest.hexdigest()


class _HashingFile:
    """A file to write to, which computes the checksum on the way.

    An error of the disk is kept until :meth:`flush`: inside of ``torch.save`` it would pass through
    C++, and come out as a RuntimeError about something else.
    """

    def __init__(self, file: BinaryIO):
        self._file = file
        self._error: OSError | None = None
        self.digest = hashlib.sha256()

    def write(self, data: Any) -> int:
        size = memoryview(data).nbytes
        if self._error is None:
            try:
                self._file.write(data)
            except OSError as error:
                self._error = error
        if self._error is None:
            self.digest.update(data)
        return size

    def flush(self) -> None:
        if self._error is not None:
            raise self._error
        self._file.flush()


def _remove_if_there(*paths: str) -> None:
    for path in paths:
        with contextlib.suppress(OSError):
            os.remove(path)
