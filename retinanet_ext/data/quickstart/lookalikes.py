"""Things in the harder scenes that are painted like an object of each class but are none."""

from __future__ import annotations

import math

import numpy as np

from .polygons import round_corners
from .shapes import CLASS_NAMES, turn_outline

__all__ = ["make_lookalike"]


def make_lookalike(rng: np.random.Generator, kind: int) -> tuple[np.ndarray, ...]:
    """The contour, in unit coordinates, of what could be mistaken for class ``kind``.

    A half disc for the circle, a bar for the square, a chevron for the triangle, a cross for the
    star, and for the ring one that is open.
    """
    name = CLASS_NAMES[kind]
    if name == "circle":
        points = _arc(0, math.pi, 1.0)
    elif name == "square":
        half = rng.uniform(0.25, 0.4)
        points = round_corners(np.array([(-1, -half), (1, -half), (1, half), (-1, half)]), 0.12)
    elif name == "triangle":
        points = np.array([(0, 1), (0.9, -0.8), (0, rng.uniform(-0.2, 0.1)), (-0.9, -0.8)])
        points = round_corners(points, 0.12)
    elif name == "star":
        points = _cross(rng.uniform(0.25, 0.38))
    else:
        end, inner = rng.uniform(1.1, 1.5) * math.pi, rng.uniform(0.45, 0.65)
        points = np.concatenate([_arc(0, end, 1.0), _arc(end, 0, inner)])
    return turn_outline(rng, (points,))


def _arc(begin: float, end: float, radius: float) -> np.ndarray:
    angles = [begin + (end - begin) * i / 48 for i in range(49)]
    return radius * np.array([(math.cos(a), math.sin(a)) for a in angles])


def _cross(half: float) -> np.ndarray:
    """A plus sign whose arms are ``2 * half`` wide, (12, 2)."""
    arm = np.array([(1.0, -half), (1.0, half), (half, half)])
    turned = []
    for quarter in range(4):
        c, s = (1, 0, -1, 0)[quarter], (0, 1, 0, -1)[quarter]
        turned.append(np.stack([c * arm[:, 0] - s * arm[:, 1], s * arm[:, 0] + c * arm[:, 1]], 1))
    return np.concatenate(turned)
