"""How training pictures are changed: flips only where they keep the meaning of a class."""

from __future__ import annotations

import re
from collections.abc import Sequence

from .choice import Choice
from .facts import DataFacts
from .pictures import tenth_side

__all__ = ["choose_augmentation", "choose_flips", "why_no_flip"]

FEW_PICTURES = 2000
LEAST_SCALE = 0.6  # of a picture in a mosaic, and no object of ten but one is then
SMALLEST = 18.0  # smaller than this, px
SUITS = r"(spades?|hearts?|diamonds?|clubs?)"
CORNER = r"^(10|[2-9akqj]) ?[shdc]$"  # of a card, as "10h"
RANKS = r"(ace|king|queen|jack|joker|deuce)"
# What is said of a class -> pattern of its name, in lower case with spaces between the words.
MEANINGS = {
    "left and right": r"\b(left|right|l|r|links|rechts|clockwise|counterclockwise|anticlockwise)\b",
    "letters": r"^(letter |char(acter)? )?[a-z]$",
    "digits": r"^(digit |number |no )?[0-9]{1,3}$|^(digit|number) ",
    # Words for numbers without a zero are counts, of pips or fingers, which a mirror leaves.
    "digits as words": r"^(zero|nought|null)$",
    "playing cards": rf"^{RANKS}s?$|\b{RANKS} of\b|\bof {SUITS}\b|^{SUITS}$|{CORNER}",
    "text": r"\b(text|words?|letters?|digits?|numbers?|licen[cs]e plates?|barcode|ocr|font)\b",
    "directions": r"\b(arrow|turn|forward|backward|east|west|north ?east|north ?west)\b",
}


def why_no_flip(class_names: Sequence[str]) -> str:
    """Why a mirrored picture may show another class, or none; "" where nothing says so.

    Of a single class, no other can be shown.
    """
    if len(class_names) == 1:
        return ""
    words = [re.sub(r"[\W_]+", " ", re.sub(r"([a-z])([A-Z])", r"\1 \2", x)) for x in class_names]
    for meaning, pattern in MEANINGS.items():
        for name, word in zip(class_names, words, strict=True):
            if re.search(pattern, word.strip().lower()):
                return f"class '{name}': {meaning} do not keep their meaning in a mirror"
    return ""


def choose_flips(class_names: Sequence[str]) -> Choice:
    """Left-right, unless the names of the classes speak against it."""
    if reason := why_no_flip(class_names):
        return Choice("flips", "none", reason, {"INPUT.RANDOM_FLIP": "none"})
    return Choice(
        "flips",
        "left-right",
        "no class name speaks of sides, digits, letters or cards",
        {"INPUT.RANDOM_FLIP": "horizontal"},
    )


def choose_augmentation(data: DataFacts, short: int, preset: str) -> Choice:
    """Mosaic, scale jitter and colour for small sets; resize and flip for large ones.

    The mosaic's canvas has the pictures' shape, so that a picture at scale 1 is as large in it as
    it is without.
    """
    if data.images >= FEW_PICTURES:
        return Choice(
            "augmentation",
            "sizes, flips",
            f"{data.images} pictures are many",
            {"INPUT.AUG": ["Default"]},
        )
    tall, wide = _median_shape(data, short)
    prob = 0.5 if preset == "accurate" else 0.3
    least = min(1.0, max(LEAST_SCALE, SMALLEST / (tenth_side(data) * short)))
    steps = [
        {"NAME": "Mosaic", "PROB": prob, "SIZE": [tall, wide], "SCALE": [round(least, 2), 1.4]},
        "Default",
        {"NAME": "RandomBrightness", "RANGE": [0.7, 1.3]},
        {"NAME": "RandomContrast", "RANGE": [0.7, 1.3]},
        {"NAME": "RandomSaturation", "RANGE": [0.7, 1.3]},
    ]
    return Choice(
        "augmentation",
        f"mosaic ({prob:.0%}) with scale jitter, sizes, colour",
        f"{data.images} pictures are few",
        {"INPUT.AUG": steps, "INPUT.AUG_MIN_VISIBLE": 0.3},
    )


def _median_shape(data: DataFacts, short: int) -> tuple[int, int]:
    """Height and width of a picture of the median shape at that short side, px."""
    wide = float(sorted(data.sizes[:, 0] / data.sizes[:, 1])[len(data.sizes) // 2])
    wide = min(max(wide, 0.5), 2.0)
    return (short, round(short * wide)) if wide >= 1 else (round(short / wide), short)
