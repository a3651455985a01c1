"""Types of options that are numbers."""

from __future__ import annotations

import argparse
from collections.abc import Callable

__all__ = ["number_above_0", "positive_int", "share"]


def number_above_0(limit: float, what: str) -> Callable[[str], float]:
    """A type of an option: a number above 0 and below ``limit``.

    Args:
        limit: not reached.
        what: the text is said not to be, such as "a number above 0".
    """

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = 0.0
        if not 0 < value < limit:
            raise argparse.ArgumentTypeError(f"'{text}' is not {what}")
        return value

    return parse


def positive_int(text: str) -> int:
    """Type of an option."""
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number from 1")
    return value


def share(text: str) -> float:
    """Type of an option."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number between 0 and 1")
    return value
