"""Closed polygons, (P, 2) of (x, y): made, rounded, cut at an image's border, and with a hole."""

from __future__ import annotations

import math

import numpy as np

__all__ = ["clip_to_image", "join_hole", "regular_polygon", "round_corners"]


def regular_polygon(corners: int, radii: tuple[float, ...]) -> np.ndarray:
    """Corners at equal angles whose distances cycle through ``radii``, (corners, 2)."""
    angles = [2 * math.pi * i / corners for i in range(corners)]
    unit = np.array([(math.cos(a), math.sin(a)) for a in angles])
    return unit * np.resize(radii, corners)[:, None]


def round_corners(corners: np.ndarray, amount: float) -> np.ndarray:
    """Replace each corner by a quadratic Bezier curve over ``amount`` of both its sides."""
    before = corners + amount * (np.roll(corners, 1, axis=0) - corners)
    after = corners + amount * (np.roll(corners, -1, axis=0) - corners)
    t = np.linspace(0, 1, 6)[None, :, None]
    curve = (1 - t) ** 2 * before[:, None] + 2 * t * (1 - t) * corners[:, None]
    return (curve + t**2 * after[:, None]).reshape(-1, 2)


def clip_to_image(points: np.ndarray, height: int, width: int) -> np.ndarray:
    """The part of a polygon that lies in an image, (Q, 2); some of its points must lie in it."""
    for axis, size in enumerate((width, height)):
        points = _clip_to_side(points, points[:, axis])
        points = _clip_to_side(points, size - points[:, axis])
    return points


def join_hole(outer: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """One polygon that is ``outer`` without ``hole``, a contour inside of it that turns as it does.

    COCO has no holes: parts of an object are added up. So the polygon goes around the outside, over
    a bridge without width to the hole, around it in the other direction, and back.
    """
    return np.concatenate([outer, outer[:1], hole[:1], hole[:0:-1], hole[:1]])


def _clip_to_side(points: np.ndarray, distance: np.ndarray) -> np.ndarray:
    """The side of a line where ``distance``, (P,), is not negative, of a closed polygon (P, 2)."""
    inside, beyond = distance >= 0, np.roll(distance, -1)
    crosses = inside != (beyond >= 0)
    share = np.divide(distance, distance - beyond, out=np.zeros_like(distance), where=crosses)
    crossings = points + share[:, None] * (np.roll(points, -1, axis=0) - points)
    kept = np.stack([inside, crosses], axis=1).ravel()
    return np.stack([points, crossings], axis=1).reshape(-1, 2)[kept]
