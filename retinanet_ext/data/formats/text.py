"""Small pieces of text in annotation files: numbers, names, tables."""

from __future__ import annotations

import csv
import math
import os
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from typing import Any

from ...errors import InputError, MissingFileError
from .table import Inputs

__all__ = [
    "parent_ids",
    "parse_flag",
    "parse_name",
    "parse_number",
    "parse_size",
    "read_class_file",
    "read_rows",
    "unique_names",
]


def parse_number(value: object, where: str, what: str) -> float:
    """A finite number; an error names ``where`` and ``what``."""
    try:
        number = float(value)  # type: ignore[arg-type]
        if isinstance(value, str) and "_" in value:  # 1_0 is 10 only to Python
            raise ValueError
    except (TypeError, ValueError, OverflowError):
        raise InputError(f"{where}: {what} is {_shown(value)}, but must be a number") from None
    if isinstance(value, bool) or not math.isfinite(number):
        raise InputError(f"{where}: {what} is {_shown(value)}, but must be a finite number")
    return number


def parse_size(value: object, where: str, what: str) -> int:
    """A width or height in whole pixels; 0 or less where it is not known."""
    number = parse_number(value, where, what)
    if number != int(number) or number > MAX_SIZE:
        raise InputError(
            f"{where}: {what} is {_shown(value)}, but must be a whole number of pixels, at most "
            f"{MAX_SIZE}"
        )
    return int(number)


def _shown(value: object) -> str:
    """A value in a message, of which a hundred characters are enough."""
    text = repr(value)
    return text if len(text) <= SHOWN_LENGTH else f"{text[:SHOWN_LENGTH]}..."


SHOWN_LENGTH = 100
MAX_SIZE = 2**31 - 1


def parse_flag(value: object, where: str, what: str) -> bool:
    """Yes or no, written as 0 or 1 or in words; anything else is an error.

    Raises:
        ValueError: names ``where``, ``what`` and the value.
    """
    if value is None:
        return False
    if isinstance(value, str | int | float):
        found = _FLAGS.get(str(value).strip().lower())
        if found is not None:
            return found
    raise InputError(f"{where}: {what} is {_shown(value)}, but must be 0 or 1")


_NO, _YES = ("", "0", "0.0", "false", "no", "n", "f"), ("1", "1.0", "true", "yes", "y", "t")
_FLAGS = dict.fromkeys(_NO, False) | dict.fromkeys(_YES, True)


def parse_name(value: object, where: str) -> str:
    """The name of a class: a text, or a whole number that is taken as one.

    Raises:
        ValueError: names ``where`` and the value, such as yaml's ``no``, which is false.
    """
    if isinstance(value, bool):
        raise InputError(
            f"{where}: is {value!r}, which is how yaml reads a bare no, yes, on or off; put the "
            "name in quotes"
        )
    if not isinstance(value, str | int) or not str(value).strip():
        raise InputError(
            f"{where}: is {_shown(value)}, but must be the name of a class; put one there"
        )
    return str(value)


def read_rows(path: str, inputs: Inputs) -> Iterator[tuple[int, list[str]]]:
    """Line number and stripped fields of each row of a CSV that is not empty."""
    inputs.add(path)
    # utf-8-sig: spreadsheets put a mark before the first name.
    with open(path, newline="", encoding="utf-8-sig") as file:
        reader, last = csv.reader(file, skipinitialspace=True), 0
        try:
            for row in reader:
                first, last = last + 1, reader.line_num
                if any("\0" in x for x in row):
                    raise InputError(f"{path}, line {last}: holds a zero byte, so it is no text")
                if any("\n" in x for x in row):
                    raise InputError(
                        f"{path}, line {first}: a quote that begins there is not closed on its "
                        "line; close or remove it"
                    )
                if any(fields := [x.strip() for x in row]):
                    yield reader.line_num, fields
        except (csv.Error, UnicodeDecodeError) as error:
            raise InputError(f"{path}, after line {reader.line_num}: {error}") from error


def read_class_file(path: str, inputs: Inputs) -> list[str]:
    """Class names in their order: rows of ``name,id`` (keras-retinanet), or one name per line.

    Ids need not be without gaps; the names are sorted by them.

    Raises:
        ValueError: a row of another kind, or a name or id twice; names file and line.
    """
    if not os.path.isfile(path):
        raise MissingFileError(f"file of class names {path} does not exist")
    found: dict[float, str] = {}
    for line, fields in read_rows(path, inputs):
        where = f"{path}, line {line}"
        if len(fields) > 2:
            raise InputError(f"{where}: has {len(fields)} fields; write 'name' or 'name,id'")
        key = parse_number(fields[1], where, "id") if len(fields) == 2 else float(len(found))
        if key in found:
            raise InputError(f"{where}: id {fields[-1]} is taken by class '{found[key]}'")
        found[key] = fields[0]
    return unique_names([found[key] for key in sorted(found)], path)


def unique_names(names: list[str], where: str) -> list[str]:
    """``names``, of which there must be one at least, none empty and none twice."""
    if not names:
        raise InputError(f"{where}: lists no classes")
    for i, name in enumerate(names):
        if not name or name in names[:i]:
            raise InputError(f"{where}: class {i} is '{name}', which is empty or there before")
    return names


def parent_ids(categories: Sequence[dict[str, Any]], used: Collection[str]) -> set[str]:
    """Categories that tools write above the classes of a COCO json: Roboflow's number 0 is one.

    They have no annotations, and either the name of another category or one that all others have as
    their supercategory.

    Args:
        categories: of the json, with ``id`` and ``name``.
        used: ids that annotations have, as texts.

    Returns:
        Their ids, as texts; never all ids of a name.
    """
    rows = [
        (str(x.get("id")), str(x.get("name")).strip(), str(x.get("supercategory")).strip())
        for x in categories
    ]
    named = Counter(name for _, name, _ in rows)
    above = Counter(parent for _, _, parent in rows)
    found = [
        (key, name)
        for key, name, parent in rows
        if key not in used
        and (named[name] > 1 or (parent != name and above[name] == len(rows) - 1 > 0))
    ]
    left = named - Counter(name for _, name in found)
    return {key for key, name in found if left[name] or named[name] == 1}
