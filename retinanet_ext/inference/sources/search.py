"""Pictures within folders and by patterns, but not those that ``predict`` itself has drawn."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Iterable

from ...data.formats.images import IMAGE_SUFFIXES, is_hidden, is_image
from ...errors import FileError, MissingFileError, listed

__all__ = [
    "CROPS",
    "DRAWN",
    "RUN",
    "VIDEO_SUFFIXES",
    "fixed_part",
    "is_video",
    "of_folder",
    "of_glob",
]

VIDEO_SUFFIXES = (
    *(".3gp", ".avi", ".flv", ".m4v", ".mjpeg", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts"),
    *(".ogv", ".ts", ".webm", ".wmv"),
)
RUN = "predict.json"
"""By this file a folder of results is known."""
DRAWN, CROPS = "drawn", "crops"
"""Folders of pictures beside it."""


def is_video(path: str) -> bool:
    """Whether a file name ends like a video's."""
    return path.lower().endswith(VIDEO_SUFFIXES)


def of_folder(folder: str, recursive: bool, leave_out: str, notes: list[str]) -> list[str]:
    """Paths of the pictures in a folder, sorted.

    Args:
        folder: that is there.
        recursive: also those of folders within it, linked ones too, each folder once.
        leave_out: the folder of the results, "" for none.
        notes: gets sentences for the user.

    Raises:
        UserError: there is none, or the folder cannot be read.
    """
    found: list[str] = []
    videos, folders = 0, 0
    skipped = os.path.realpath(leave_out) if leave_out else ""
    seen = {os.path.realpath(folder)}
    results: list[str] = []
    for where, inner, names in os.walk(folder, onerror=_refuse, followlinks=True):
        inner[:] = sorted(x for x in inner if not is_hidden(x))
        kept = []
        for name in inner:
            path = os.path.join(where, name)
            real = os.path.realpath(path)
            if real == skipped or (recursive and real in seen):
                continue
            if _is_of_results(where, name):
                results.append(path)
                continue
            seen.add(real)
            kept.append(name)
        inner[:] = kept
        # A folder that is called like a picture is one that cannot be read, and is not hidden.
        alike = [] if recursive else [x for x in inner if is_image(x)]
        found += [os.path.join(where, x) for x in sorted([*filter(is_image, names), *alike])]
        videos += sum(map(is_video, names))
        folders += len(inner) - len(alike)
        if not recursive:
            break
    if recursive:
        notes += _note_on(results)
    if found:
        if videos:
            notes.append(f"'{folder}' also holds videos ({videos}); name each to read it")
        return found
    if not recursive and folders:
        raise MissingFileError(
            f"SOURCE '{folder}' holds folders ({folders}) but no picture; --recursive reads those "
            "within them"
        )
    if videos:
        raise MissingFileError(
            f"SOURCE '{folder}' holds no picture but videos ({videos}); name each of them, as by "
            f"'{os.path.join(folder, '*')}'"
        )
    raise MissingFileError(
        f"SOURCE '{folder}' is a folder without pictures ({' '.join(IMAGE_SUFFIXES)})"
    )


def of_glob(pattern: str, leave_out: str, notes: list[str]) -> list[str]:
    """Paths of the pictures and videos that match, sorted.

    Args:
        pattern: of :mod:`glob`; ``**`` stands for folders within folders.
        leave_out, notes: as of :func:`of_folder`.

    Raises:
        UserError: there is none.
    """
    matches = sorted(glob.glob(pattern, recursive=True))
    if not matches:
        raise MissingFileError(f"SOURCE '{pattern}' is a pattern that no file matches")
    wanted = [x for x in matches if is_image(x) or is_video(x)]
    if not wanted:
        raise MissingFileError(
            f"SOURCE '{pattern}' matches no picture or video, only {listed(matches, 3)}"
        )
    results: dict[str, None] = {}
    kept = []
    is_result = _drawn_folder(fixed_part(pattern), leave_out)
    for path in wanted:
        folder = is_result(os.path.dirname(path))
        if folder:
            results[folder] = None
        else:
            kept.append(path)
    if not kept:
        raise MissingFileError(
            f"SOURCE '{pattern}' matches only what predict has drawn, in {listed([*results], 3)}; "
            "name that folder to read it"
        )
    notes += _note_on(list(results))
    return kept


def fixed_part(pattern: str) -> str:
    """The folder before the first wildcard."""
    parts = []
    for part in pattern.split(os.sep)[:-1]:
        if glob.has_magic(part):
            break
        parts.append(part)
    return os.sep.join(parts) or (os.sep if pattern.startswith(os.sep) else ".")


def _refuse(error: OSError) -> None:
    raise FileError(f"SOURCE '{error.filename}' cannot be read: {error.strerror}")


def _is_of_results(where: str, name: str) -> bool:
    """Whether ``where`` holds results, and ``name`` in it is a folder of its pictures."""
    return name in (DRAWN, CROPS) and os.path.isfile(os.path.join(where, RUN))


def _drawn_folder(start: str, leave_out: str) -> Callable[[str], str]:
    """What tells, of a folder below ``start``, the folder of results that it lies in, or ""."""
    known = {os.path.normpath(start): ""}
    skipped = os.path.realpath(leave_out) if leave_out else ""

    def of(folder: str) -> str:
        folder = os.path.normpath(folder)
        if folder not in known:
            where, name = os.path.split(folder)
            is_result = _is_of_results(where, name) or os.path.realpath(folder) == skipped
            known[folder] = folder if is_result else of(where) if where else ""
        return known[folder]

    return of


def _note_on(results: Iterable[str]) -> list[str]:
    folders = [f"'{x}'" for x in results]
    if not folders:
        return []
    return [f"left out, since predict has drawn them: the pictures in {listed(folders, 3)}"]
