"""Columns made of what a json may hold, whatever its types; numbers count as for the readers."""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from itertools import chain
from typing import Any

import numpy as np

from ...errors import InputError
from ..formats.text import parse_flag, parse_number

__all__ = ["box_columns", "flag_or_fault", "positions", "size_or_nan"]


def box_columns(values: list[Any]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Boxes as numbers.

    Returns:
        (M, 4) float64; (M,) bool, which are not four numbers; (M,) bool, which have numbers that
        are written as texts.
    """
    none = np.zeros(len(values), dtype=bool)
    try:
        if set(map(len, values)) <= {4}:
            # array, unlike NumPy, does not take text for numbers.
            flat = array("d", chain.from_iterable(values))
            return np.array(flat).reshape(-1, 4), none, none
    except (TypeError, OverflowError):
        pass
    boxes = np.full((len(values), 4), np.nan)
    malformed, as_text = ~none, none
    for row, value in enumerate(values):
        try:
            if len(value) == 4:
                boxes[row] = array("d", value)
                malformed[row] = False
        except (TypeError, OverflowError):
            if isinstance(value, list | tuple) and any(isinstance(x, str) for x in value):
                numbers = [_number(x) for x in value]
                if len(numbers) == 4 and None not in numbers:
                    boxes[row], malformed[row], as_text[row] = numbers, False, True
    return boxes, malformed, as_text


def size_or_nan(width: Any, height: Any) -> tuple[float, float]:
    """Width and height; NaN for what is no number above 0."""

    def number(value: Any) -> float:
        found = None if value is None else _number(value)
        return found if found is not None and found > 0 else np.nan

    return number(width), number(height)


def flag_or_fault(found: dict[str, Any]) -> tuple[bool, str]:
    """Whether an annotation is a crowd or ignored, and what is wrong with its flags, or ""."""
    flags, wrong = [False], []
    for key in ("iscrowd", "ignore"):
        try:
            flags.append(parse_flag(found.get(key), "", key))
        except InputError as error:
            wrong.append(str(error).removeprefix(": "))
    return any(flags), "; ".join(wrong)


def positions(known: list[Any], wanted: Iterable[Any]) -> np.ndarray:
    """Index of each wanted value's first place in ``known``; -1 where it is not there."""
    places: dict[Any, int] = {}
    for row, value in enumerate(known):
        if _is_id(value):
            places.setdefault(value, row)
    found = (places.get(x, -1) if _is_id(x) else -1 for x in wanted)
    return np.fromiter(found, dtype=np.int64)


def _number(value: Any) -> float | None:
    try:
        return parse_number(value, "", "")
    except InputError:
        return None


def _is_id(value: Any) -> bool:
    """Whether it can stand for an image or a category; True would be found as 1."""
    return type(value) is int or isinstance(value, (str, np.integer, float))
