"""Colours of classes, each as far from all earlier ones as an eye can see."""

from __future__ import annotations

import colorsys
import functools

import numpy as np

__all__ = ["DISTINCT", "PALETTE", "class_color", "ink_on", "perceived"]

Color = tuple[int, int, int]

PALETTE = (
    *("#ff5a5f", "#2ec4b6", "#ffd000", "#3d8bff", "#e040ff"),
    *("#5fd700", "#f3b0ff", "#a07800", "#86f7d6"),
)
DISTINCT = 12
"""So many classes can be told from each other by colour; of more, a label has to say which."""

INK_LIGHTNESS = 0.62  # of a ground, from which on black letters are the clearer ones
# Darker ones are lost on dark ground, and grey ones are taken for the white of dashed boxes.
MIN_LIGHTNESS, MAX_LIGHTNESS, MIN_CHROMA = 0.55, 0.92, 0.06


def class_color(index: int) -> Color:
    """RGB of class ``index``, the same whatever other classes there are."""
    colors = _colors(1 << max(index, len(PALETTE)).bit_length())  # few different lengths
    return colors[index % len(colors)]


def ink_on(color: Color) -> str:
    """Black or white, whichever can be read on ``color``."""
    return "#10141a" if perceived(np.array([color]))[0, 0] > INK_LIGHTNESS else "#ffffff"


def perceived(colors: np.ndarray) -> np.ndarray:
    """(N, 3) RGB of 0 to 255 -> (N, 3) lightness, green to red, blue to yellow.

    This is Oklab (Ottosson 2020), in which the Euclidean distance is about how different two
    colours look.
    """
    rgb = np.asarray(colors, dtype=float) / 255
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    cones = linear @ np.array(
        [
            [0.4122214708, 0.2119034982, 0.0883024619],
            [0.5363325363, 0.6806995451, 0.2817188376],
            [0.0514459929, 0.1073969566, 0.6299787005],
        ]
    )
    return np.cbrt(cones) @ np.array(
        [
            [0.2104542553, 1.9779984951, 0.0259040371],
            [0.7936177850, -2.4285922050, 0.7827717662],
            [-0.0040720468, 0.4505937099, -0.8086757660],
        ]
    )


@functools.cache
def _colors(number: int) -> list[Color]:
    """At least ``number`` colours where so many are left: the palette, then the farthest ones."""
    chosen = np.array([list(bytes.fromhex(x[1:])) for x in PALETTE])
    candidates = _candidates()
    places = perceived(candidates)
    known = perceived(chosen)
    distance = np.linalg.norm(places[:, None] - known, axis=2).min(axis=1)
    picked = []
    for _ in range(min(number - len(chosen), len(candidates))):
        farthest = int(distance.argmax())
        picked.append(farthest)
        distance = np.minimum(distance, np.linalg.norm(places - places[farthest], axis=1))
    rows = np.concatenate([chosen, candidates[picked]]).tolist()
    return [(red, green, blue) for red, green, blue in rows]


def _candidates() -> np.ndarray:
    """(N, 3) uint8 RGB: bright colours of all hues."""
    grid = [
        colorsys.hsv_to_rgb(hue / 72, saturation, value)
        for hue in range(72)
        for saturation in (0.35, 0.5, 0.65, 0.8, 1.0)
        for value in (0.6, 0.7, 0.8, 0.9, 1.0)
    ]
    colors = np.unique(np.round(np.array(grid) * 255).astype(np.uint8), axis=0)
    lightness, green_red, blue_yellow = perceived(colors).T
    bright = (lightness > MIN_LIGHTNESS) & (lightness < MAX_LIGHTNESS)
    return colors[bright & (np.hypot(green_red, blue_yellow) > MIN_CHROMA)]
