"""Columns made of what a json may hold, whatever its types."""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from itertools import chain
from typing import Any

import numpy as np

__all__ = ["box_columns", "positions", "size_or_nan"]


def box_columns(values: list[Any]) -> tuple[np.ndarray, np.ndarray]:
    """(M, 4) float64 and (M,) bool, which of them are not four numbers."""
    try:
        if set(map(len, values)) <= {4}:
            # array, unlike NumPy, does not take text for numbers.
            flat = array("d", chain.from_iterable(values))
            return np.array(flat).reshape(-1, 4), np.zeros(len(values), dtype=bool)
    except (TypeError, OverflowError):
        pass
    boxes = np.full((len(values), 4), np.nan)
    malformed = np.ones(len(values), dtype=bool)
    for row, value in enumerate(values):
        try:
            if len(value) == 4:
                boxes[row] = array("d", value)
                malformed[row] = False
        except (TypeError, OverflowError):
            pass
    return boxes, malformed


def size_or_nan(width: Any, height: Any) -> tuple[float, float]:
    def number(value: Any) -> float:
        is_number = isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
        return float(value) if is_number and value > 0 else np.nan

    return number(width), number(height)


def positions(known: list[Any], wanted: Iterable[Any]) -> np.ndarray:
    """Index of each wanted value's first place in ``known``; -1 where it is not there."""
    places: dict[Any, int] = {}
    for row, value in enumerate(known):
        if _is_id(value):
            places.setdefault(value, row)
    found = (places.get(x, -1) if _is_id(x) else -1 for x in wanted)
    return np.fromiter(found, dtype=np.int64)


def _is_id(value: Any) -> bool:
    """Whether it can stand for an image or a category; True would be found as 1."""
    return type(value) is int or isinstance(value, (str, np.integer, float))
