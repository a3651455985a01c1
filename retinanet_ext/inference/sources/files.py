"""Files, folders, globs, lists and the standard input as entries to read, each once."""

from __future__ import annotations

import codecs
import glob
import io
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import BinaryIO

from PIL import Image

from ...errors import InputError, MissingFileError
from .search import VIDEO_SUFFIXES, fixed_part, is_video, of_folder, of_glob

__all__ = ["CAMERA", "VIDEO_SUFFIXES", "Entry", "Listing", "list_sources"]

CAMERA = "webcam"
LIST = ".txt"
UTF8_MARK, UTF16 = codecs.BOM_UTF8, (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
CHUNK = 1 << 16


@dataclass(frozen=True)
class Entry:
    """A picture, a video or a camera, not opened yet.

    Attributes:
        path: as given or found; ``webcam`` or ``webcam:1`` of a camera.
        kind: "picture", "video" or "camera".
        place: relative path that outputs get, with its suffix; never absolute, without "..".
    """

    path: str
    kind: str
    place: str


@dataclass
class Listing:
    """What is to be read, in order.

    Attributes:
        entries: known at the start.
        rest: further ones, known only when they arrive on the standard input.
        notes: sentences for the user.
    """

    entries: list[Entry] = field(default_factory=list)
    rest: Callable[[], Iterator[Entry]] | None = None
    notes: list[str] = field(default_factory=list)

    def __iter__(self) -> Iterator[Entry]:
        yield from self.entries
        if self.rest is not None:
            yield from self.rest()

    @property
    def only_pictures(self) -> bool:
        """Whether what is known at the start is neither video nor camera."""
        return all(entry.kind == "picture" for entry in self.entries)

    @property
    def is_live(self) -> bool:
        """Whether it is a camera."""
        return any(entry.kind == "camera" for entry in self.entries)


def list_sources(
    words: Sequence[str],
    recursive: bool = False,
    leave_out: str = "",
    stdin: BinaryIO | None = None,
) -> Listing:
    """What the words of a command line name.

    Args:
        words: each a picture or video, a folder of pictures, a glob, a ``.txt`` list with a path a
            line, ``webcam`` or ``webcam:1``, or ``-`` for paths on the standard input.
        recursive: also take the pictures of folders within folders.
        leave_out: a folder that is not searched: that of the results. Nor are pictures read that an
            earlier run has drawn, unless their folder is named.
        stdin: of ``-``.

    Raises:
        UserError: names the word that gives nothing, and what can be done.
    """
    listing = Listing()
    only = len(words) == 1
    found: dict[str, Entry] = {}
    for word in words:
        if word == "-":
            if stdin is None or not only:
                raise InputError("- (paths from the standard input) cannot be among other sources")
            listing.rest = lambda: _of_stream(stdin)
            continue
        for path, root in _paths_of(word, recursive, leave_out, listing.notes):
            place = os.path.relpath(path, root) if only and root else path
            entry = Entry(path, _kind(path), _inside(place))
            found.setdefault(os.path.normpath(path) if entry.kind != "camera" else path, entry)
    listing.entries = list(found.values())
    if listing.is_live and len(listing.entries) > 1:
        raise InputError("a camera cannot be among other sources, for it has no end")
    return listing


def _paths_of(
    word: str, recursive: bool, leave_out: str, notes: list[str]
) -> Iterator[tuple[str, str]]:
    """Paths, each with the folder that outputs are named from; "" for the path as it stands."""
    if os.path.isdir(word):
        for path in of_folder(word, recursive, leave_out, notes):
            yield path, word
    elif os.path.exists(word):
        if word.lower().endswith(LIST):
            for path in _of_list(word):
                yield path, ""
        else:
            yield word, os.path.dirname(word) or "."
    elif word.partition(":")[0] == CAMERA:
        yield word, ""
    elif glob.has_magic(word):
        for path in of_glob(word, leave_out, notes):
            yield path, fixed_part(word)
    else:
        raise MissingFileError(
            f"SOURCE is '{word}', and there is no such file or folder; a source is a picture, a "
            f"video, a folder, a pattern such as 'photos/*.jpg', a {LIST} list of paths, {CAMERA}, "
            "or - for paths on the standard input"
        )


def _of_list(path: str) -> list[str]:
    with open(path, "rb") as file:
        names = list(_names(file))
        file.seek(0)
        if file.read(2) in UTF16:
            raise InputError(
                f"SOURCE '{path}' is a list in UTF-16; save it as UTF-8, in PowerShell by "
                "Out-File -Encoding utf8"
            )
    if not names:
        raise InputError(f"SOURCE '{path}' is a list without a path; it needs one a line")
    beside = os.path.dirname(path)
    # As on the command line; a list that lies with its pictures works from anywhere, too.
    return [
        x if os.path.exists(x) or not os.path.exists(other := os.path.join(beside, x)) else other
        for x in names
    ]


def _of_stream(stream: BinaryIO) -> Iterator[Entry]:
    seen: set[int] = set()
    for path in _names(stream):
        key = hash(os.path.normpath(path))
        if key not in seen:
            seen.add(key)
            yield Entry(path, _kind(path), _inside(path))


def _refuse_picture(start: bytes) -> None:
    try:
        with Image.open(io.BytesIO(start)) as picture:
            kind = picture.format
    except Image.DecompressionBombError:
        kind = "huge"
    except (OSError, SyntaxError, ValueError):
        return
    raise InputError(
        f"a list of paths, one a line, was expected, but it begins as a {kind} picture; name the "
        "picture's file itself"
    )


def _names(stream: BinaryIO) -> Iterator[str]:
    """Paths, one a line; or ended by NUL, as ``find -print0`` writes them."""
    rest, end = b"", b""
    read = getattr(stream, "read1", stream.read)
    is_start = True
    while chunk := read(CHUNK):
        rest += chunk
        if is_start and len(rest) >= len(UTF8_MARK):  # as editors on Windows put it before a text
            _refuse_picture(rest)
            rest, is_start = rest.removeprefix(UTF8_MARK), False
        end = end or (b"\0" if b"\0" in rest else b"\n" if b"\n" in rest else b"")
        if end:
            *whole, rest = rest.split(end)
            yield from filter(None, map(_decoded, whole))
    if rest.strip():
        yield _decoded(rest)


def _decoded(name: bytes) -> str:
    return os.fsdecode(name.removesuffix(b"\r"))


def _kind(path: str) -> str:
    if path.partition(":")[0] == CAMERA and not os.path.exists(path):
        return "camera"
    return "video" if is_video(path) else "picture"


def _inside(path: str) -> str:
    """The path below a folder of results: nothing absolute, nothing that leads out of it."""
    parts = os.path.splitdrive(os.path.normpath(path))[1].split(os.sep)
    return os.path.join(*([x for x in parts if x not in ("", ".", "..")] or ["picture"]))
