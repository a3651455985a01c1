"""Text of annotation files: whatever wrote it, whole and in memory, or a sentence."""

from __future__ import annotations

import codecs
import os

from ...errors import InputError
from ...untrusted import check_regular

__all__ = ["read_bytes", "read_text"]

MOST_BYTES = 2**28  # of a list, a label file or an xml; real ones have a thousandth of it
MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def read_bytes(path: str | os.PathLike[str], most: int = MOST_BYTES) -> bytes:
    """The content of a regular file; a device or pipe would never end.

    Raises:
        ValueError: the path is no regular file, or one of more than ``most`` bytes.
        OSError: it cannot be read.
    """
    check_regular(path, most)
    with open(path, "rb") as file:
        return file.read()


def read_text(path: str | os.PathLike[str], most: int = MOST_BYTES) -> str:
    """The text of a file in UTF-8, or in UTF-16 where a byte order mark says so.

    Raises:
        ValueError: as :func:`read_bytes`, or it is in another encoding; names file and line.
        OSError: it cannot be read.
    """
    data = read_bytes(path, most)
    encoding = next((name for mark, name in MARKS if data.startswith(mark)), "utf-8")
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise InputError(
            f"{path}, line {line}: is not UTF-8 text; save the file as UTF-8"
        ) from None
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        raise InputError(
            f"{path}, line {line}: holds a zero byte, so it is no text; check the file"
        )
    return text
