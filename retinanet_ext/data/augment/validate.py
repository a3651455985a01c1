"""Checks of parameters: each takes a value and returns "" or what it must be."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = [
    "Check",
    "number",
    "number_range",
    "one_of",
    "quarter_turns",
    "shares",
    "size",
    "size_or_share",
    "sizes",
    "whole_number",
    "whole_range",
]

Check = Callable[[Any], str]

MAX_SIDE = 16384  # px; larger images are a slip of the keyboard


def number(low: float, high: float) -> Check:
    """A number in [low, high]."""
    return lambda value: (
        "" if _is_number(value) and low <= value <= high else f"a number in [{low}, {high}]"
    )


def whole_number(low: int) -> Check:
    """A whole number from ``low`` on."""
    return lambda value: "" if _is_int(value) and value >= low else f"a whole number from {low} on"


def number_range(low: float, high: float) -> Check:
    """[smallest, largest], numbers in [low, high]."""

    def check(value: Any) -> str:
        pair = _is_list(value, 2) and all(map(_is_number, value))
        if pair and low <= value[0] <= value[1] <= high:
            return ""
        return f"[smallest, largest], both in [{low}, {high}]"

    return check


def whole_range(low: int, high: int) -> Check:
    """[smallest, largest], whole numbers in [low, high]."""
    in_range = number_range(low, high)

    def check(value: Any) -> str:
        wrong = in_range(value)
        if wrong or not all(map(_is_int, value)):
            return f"[smallest, largest], whole numbers in [{low}, {high}]"
        return ""

    return check


def one_of(*names: str) -> Check:
    """One of some words."""
    return lambda value: "" if value in names else f"one of {', '.join(names)}"


def size(value: Any) -> str:
    """[height, width] in pixels."""
    good = _is_list(value, 2) and all(_is_int(x) and 1 <= x <= MAX_SIDE for x in value)
    return "" if good else f"[height, width] in pixels, from 1 to {MAX_SIDE}"


def sizes(value: Any) -> str:
    """A list of pixels; 0 leaves an image as it is."""
    good = _is_list(value) and all(_is_int(x) and 0 <= x <= MAX_SIDE for x in value)
    return "" if good else f"a list of pixels, from 0 (leaves the image as it is) to {MAX_SIDE}"


def shares(value: Any) -> str:
    """A list of numbers in (0, 1)."""
    good = _is_list(value) and all(_is_number(x) and 0 < x < 1 for x in value)
    return "" if good else "a list of numbers in (0, 1)"


def size_or_share(value: Any) -> str:
    """Two numbers above 0; :func:`.parse.parse_augmentations` knows the unit."""
    good = _is_list(value, 2) and all(_is_number(x) and 0 < x <= MAX_SIDE for x in value)
    return "" if good else "[height, width], or [smallest, largest] with TYPE absolute_range"


def quarter_turns(value: Any) -> str:
    """A list of multiples of 90."""
    good = _is_list(value) and all(_is_int(x) and x % 90 == 0 for x in value)
    return "" if good else "a list of multiples of 90 (degrees); others would blur the boxes"


def _is_list(value: Any, length: int | None = None) -> bool:
    is_list = isinstance(value, (list, tuple)) and len(value) > 0
    return is_list and (length is None or len(value) == length)


def _is_number(value: Any) -> bool:
    # NaN fails every comparison that follows.
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
