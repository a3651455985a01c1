"""Nasty values, and what each of them is as a number, a flag, a name."""

from __future__ import annotations

import math
import random
from typing import Any

__all__ = ["BAD_NUMBERS", "BAD_TEXT_NUMBERS", "as_written", "odd_spelling", "random_number"]

# None of them is a number that a box can have.
BAD_NUMBERS: tuple[Any, ...] = (
    math.nan,
    math.inf,
    -math.inf,
    True,
    False,
    None,
    [],
    [3],
    {},
    {"x": 1},
    "",
    " ",
    "abc",
    "nan",
    "inf",
    "1e400",
    "1_0",
    "0x10",
    "12,5",
    "1 2",
    "--3",
    "3px",
    "\u00bd",
    "\u4e09",
    "1\u00002",
)
BAD_TEXT_NUMBERS: tuple[str, ...] = (
    *(x for x in BAD_NUMBERS if isinstance(x, str) and x.strip()),
    "True",
    "None",
    "-inf",
    "NaN",
    "infinity",
    "1e999",
    "0.5_0",
    "[3]",
    "50%",
    "1;2",
    "2.5.1",
    "1e",
)


def odd_spelling(rng: random.Random, number: float) -> str:
    """The same number in other words."""
    text = repr(round(number, 6))
    digits = str.maketrans(
        "0123456789", "\uff10\uff11\uff12\uff13\uff14\uff15\uff16\uff17\uff18\uff19"
    )
    spellings = [
        f" {text} ",
        f"+{text}",
        f"{text}e0",
        f"0{text}",
        f"{text}0",
        text.translate(digits),
    ]
    return rng.choice([x for x in spellings if "e" not in text or x.strip() == text])


def random_number(rng: random.Random) -> float:
    """A number of two decimals that is a coordinate, or not at all one."""
    return rng.choice(
        [0, -0.0, 1, -1, 0.5, 5.25, -7.5, 39, 60, 81, 500, -500, 10**6, rng.randint(-90, 90)]
    )


def as_written(value: Any) -> str:
    """A value as text, as programs write it."""
    return value if isinstance(value, str) else repr(value)
