"""Composes one scene of the quickstart dataset: lit, textured shapes over a cluttered background.

A scene follows only from its random generator.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from .backdrops import draw_backdrop
from .lookalikes import make_lookalike
from .shapes import CLASS_NAMES, Shape, make_outline, paint_shape, place_outline

__all__ = ["MIN_VISIBLE", "Scene", "SceneStyle", "draw_scene"]

MIN_VISIBLE = 0.5  # a shape that shows less of its area than this has no annotation
MIN_FREE = 0.9  # what a new shape should leave in sight of each earlier one
TRIES = 6  # places tried for a shape before it may hide another


@dataclass(frozen=True)
class SceneStyle:
    """What there is to see in the scenes of a dataset.

    Attributes:
        objects: fewest and most of them in an image, except for empty ones.
        sizes: smallest and largest, longer box side before clipping, px.
        lookalikes: fewest and most things in an image that are painted like objects but are none.
    """

    objects: tuple[int, int] = (1, 12)
    sizes: tuple[float, float] = (12.0, 200.0)
    lookalikes: tuple[int, int] = (0, 0)


@dataclass(frozen=True)
class Scene:
    """An image and what is to be found in it.

    Attributes:
        image: (H, W, 3) uint8, RGB.
        boxes: (N, 4) float64, absolute XYXY, pixel edges at integers: the extent of the part of
            each shape that lies in the image, also where another shape covers it.
        classes: (N,) int64 indices into ``CLASS_NAMES``.
        polygons: N outlines (P, 2) of what the boxes enclose, in pixels (x, y).
    """

    image: np.ndarray
    boxes: np.ndarray
    classes: np.ndarray
    polygons: tuple[np.ndarray, ...]


def draw_scene(
    rng: np.random.Generator,
    height: int,
    width: int,
    num_objects: int,
    style: SceneStyle = SceneStyle(),
) -> Scene:
    """Draw a scene with ``num_objects`` shapes, of which later ones cover earlier ones.

    A shape that ends up with less than ``MIN_VISIBLE`` of its area in sight stays in the picture
    without an annotation.

    Args:
        rng: source of all choices; the same state gives the same scene.
        height, width: size in pixels, at least 64.
        num_objects: number of shapes to draw, 0 or more.
        style: their sizes, and what else there is.
    """
    image = draw_backdrop(rng, height, width)
    owner = np.full((height, width), -1, dtype=np.int32)  # index of the topmost shape
    light = rng.uniform(0, 2 * math.pi)
    _paint_lookalikes(rng, image, light, style)
    shapes: list[Shape] = []
    areas: list[int] = []
    for index in range(num_objects):
        shapes.append(_choose_shape(rng, owner, areas, style))
        covered, area = paint_shape(rng, image, shapes[-1], light)
        owner[covered] = index
        areas.append(area)
    seen = _visible_areas(owner, len(shapes))
    kept = [s for s, a, v in zip(shapes, areas, seen, strict=True) if v >= MIN_VISIBLE * a]
    boxes = np.array([s.box_within(height, width) for s in kept]).reshape(-1, 4)
    kinds = np.array([s.kind for s in kept], dtype=np.int64)
    polygons = tuple(s.polygon_within(height, width) for s in kept)
    return Scene(_expose(rng, image), boxes, kinds, polygons)


def _paint_lookalikes(
    rng: np.random.Generator, image: np.ndarray, light: float, style: SceneStyle
) -> None:
    fewest, most = style.lookalikes
    count = int(rng.integers(fewest, most + 1)) if most else 0
    for _ in range(count):
        kind = int(rng.integers(len(CLASS_NAMES)))
        centre = rng.random(2) * image.shape[:0:-1]
        shape = place_outline(make_lookalike(rng, kind), kind, _choose_size(rng, style), centre)
        paint_shape(rng, image, shape, light)


def _choose_size(rng: np.random.Generator, style: SceneStyle) -> float:
    """Tiny and huge ones are rarer than those in between, on a logarithmic scale."""
    smallest, largest = style.sizes
    return smallest * (largest / smallest) ** float(rng.random(2).mean())


def _choose_shape(
    rng: np.random.Generator, owner: np.ndarray, areas: list[int], style: SceneStyle
) -> Shape:
    """Choose class, size and place; the last try stands even if it hides an earlier shape."""
    kind = int(rng.integers(len(CLASS_NAMES)))
    outline = make_outline(rng, kind)
    for _ in range(TRIES):
        size = _choose_size(rng, style)
        # Only what is large enough to be recognized in part may leave the image.
        margin = 0.4 * size if size >= 32 else 0.5 * size + 1
        room = np.array(owner.shape[::-1]) - 2 * margin
        shape = place_outline(outline, kind, size, margin + rng.random(2) * room)
        if not _hides_any(shape, owner, areas):
            break
    return shape


def _hides_any(shape: Shape, owner: np.ndarray, areas: list[int]) -> bool:
    """Whether the box of ``shape`` leaves less than ``MIN_FREE`` of any earlier shape in sight."""
    left, top, right, bottom = (int(v) for v in np.maximum(np.rint(shape.box), 0))
    rest = owner.copy()
    rest[top:bottom, left:right] = -1
    return bool((_visible_areas(rest, len(areas)) < MIN_FREE * np.array(areas)).any())


def _visible_areas(owner: np.ndarray, count: int) -> np.ndarray:
    """Pixels that each of ``count`` shapes owns, (count,)."""
    return np.bincount(owner.ravel() + 1, minlength=count + 1)[1:]


def _expose(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Camera: a random gain and sensor noise; (3, H, W) float32 to (H, W, 3) uint8."""
    strength = int(rng.integers(1, 7))
    noise = rng.integers(-strength, strength + 1, image.shape, dtype=np.int8)
    exposed = image * rng.uniform(0.85, 1.1) + noise
    pixels = np.clip(np.rint(exposed), 0, 255).astype(np.uint8)
    return np.ascontiguousarray(pixels.transpose(1, 2, 0))
