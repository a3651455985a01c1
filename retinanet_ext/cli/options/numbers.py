"""Types of options that are numbers."""

from __future__ import annotations

import argparse
from collections.abc import Callable

__all__ = ["number_above_0"]


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
