"""The objects of the quickstart scenes: outlines, and how they are lit, textured and blended.

Coordinates are continuous pixels, (x, y), with (0, 0) at the outer corner of the first pixel.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from .polygons import clip_to_image, join_hole, regular_polygon, round_corners
from .raster import blur, draw_line, fill, shrink

__all__ = [
    "CLASS_NAMES",
    "Shape",
    "make_outline",
    "paint_shape",
    "place_outline",
    "turn_outline",
]

CLASS_NAMES = ("circle", "square", "triangle", "star", "ring")
SUPERSAMPLE = 4
# Colour is a hint, not a rule: most objects of a class wear its colours (rows of COLOURS), so that
# a small network learns in minutes; the others have to be recognized by their shape.
CLASS_COLOURS = ((0, 1), (6, 7), (2, 3), (8, 9, 10), (4, 5))
IN_CLASS_COLOURS = 0.95

COLOURS = np.array(
    [
        (231, 76, 60), (240, 132, 48), (248, 196, 68), (150, 198, 74), (52, 160, 98),
        (42, 178, 172), (60, 152, 220), (64, 96, 200), (128, 86, 196), (206, 84, 168),
        (242, 140, 160), (246, 240, 226), (62, 66, 82), (166, 96, 62),
    ],
    dtype=np.float32,
)  # fmt: skip


@dataclass(frozen=True)
class Shape:
    """A placed outline.

    Attributes:
        kind: index into ``CLASS_NAMES``.
        size: longer box side in pixels.
        contours: outer contour, then holes; each (P, 2) float64 in image pixels.
    """

    kind: int
    size: float
    contours: tuple[np.ndarray, ...]

    @property
    def box(self) -> np.ndarray:
        """(4,) XYXY of the whole shape, not clipped to the image."""
        return np.concatenate([self.contours[0].min(axis=0), self.contours[0].max(axis=0)])

    def box_within(self, height: int, width: int) -> np.ndarray:
        """(4,) XYXY of the part that lies in an image; the centre must lie in it."""
        points = clip_to_image(self.contours[0], height, width)
        box = np.concatenate([points.min(axis=0), points.max(axis=0)])
        return np.clip(box, 0, [width, height, width, height])  # crossings are rounded

    def polygon_within(self, height: int, width: int) -> np.ndarray:
        """(P, 2) outline of that part without the shape's hole, whose box is that of the part."""
        points, *holes = self.contours
        for hole in holes:
            points = join_hole(points, hole)
        return np.clip(clip_to_image(points, height, width), 0, [width, height])


def make_outline(rng: np.random.Generator, kind: int) -> tuple[np.ndarray, ...]:
    """Contours of class ``kind`` in unit coordinates, turned at random and seen slightly aslant."""
    name = CLASS_NAMES[kind]
    contours: tuple[np.ndarray, ...]
    if name in ("circle", "ring"):
        circle = regular_polygon(96, (1.0,))
        contours = (circle,) if name == "circle" else (circle, circle * rng.uniform(0.45, 0.65))
    elif name == "star":
        contours = (round_corners(regular_polygon(10, (1.0, rng.uniform(0.4, 0.52))), 0.12),)
    else:
        contours = (round_corners(regular_polygon(4 if name == "square" else 3, (1.0,)), 0.12),)
    return turn_outline(rng, contours)


def turn_outline(
    rng: np.random.Generator, contours: tuple[np.ndarray, ...]
) -> tuple[np.ndarray, ...]:
    """Turn contours at random and see them slightly aslant."""
    turn, angle = rng.uniform(0, 2 * math.pi, 2)
    aslant = np.array([1.0, rng.uniform(0.8, 1.0)])
    return tuple(_rotate(_rotate(points, turn) * aslant, angle) for points in contours)


def place_outline(
    outline: tuple[np.ndarray, ...], kind: int, size: float, centre: np.ndarray
) -> Shape:
    """Fit the longer box side of ``outline`` to ``size`` px and its box centre to ``centre``."""
    low, high = outline[0].min(axis=0), outline[0].max(axis=0)
    scale = size / (high - low).max()
    contours = tuple((points - (low + high) / 2) * scale + centre for points in outline)
    return Shape(kind, size, contours)


def paint_shape(
    rng: np.random.Generator, image: np.ndarray, shape: Shape, light: float
) -> tuple[np.ndarray, int]:
    """Blend ``shape`` and its soft shadow into ``image``.

    Args:
        rng: source of colour and texture.
        image: (3, H, W) float32 RGB in [0, 255], changed in place.
        shape: what to paint; may reach over the border.
        light: direction that the light comes from, radians.

    Returns:
        (H, W) bool, the pixels that the shape covers, and the area in pixels of the whole shape
        with what is outside of the image.
    """
    height, width = image.shape[1:]
    pad = int(4 + 0.25 * shape.size)
    left, top = (int(v) - pad for v in np.floor(shape.box[:2]))
    right, bottom = (int(v) + pad for v in np.ceil(shape.box[2:]))
    mask, rim = _masks(shape, left, top, bottom - top, right - left)
    rows = slice(max(-top, 0), min(bottom, height) - top)
    columns = slice(max(-left, 0), min(right, width) - left)
    window = image[:, max(top, 0) : bottom, max(left, 0) : right]
    # Every 4th pixel is enough for a mean, and integers have no order of summation.
    ground = window[:, ::4, ::4].astype(np.int32).mean(axis=(1, 2))
    colour = _surface(rng, shape, mask, light, ground)
    colour *= 1 - rng.uniform(0.2, 0.55) * rim
    shadow = _shadow(mask, shape.size, light) * rng.uniform(0.3, 0.6)
    window *= 1 - shadow[rows, columns]
    window += (colour[:, rows, columns] - window) * _unit(mask[rows, columns])
    covered = np.zeros((height, width), dtype=bool)
    covered[max(top, 0) : bottom, max(left, 0) : right] = mask[rows, columns] > 127
    return covered, int((mask > 127).sum())


def _masks(
    shape: Shape, left: int, top: int, height: int, width: int
) -> tuple[np.ndarray, np.ndarray]:
    """Coverage, (height, width) uint8, and outline, float32 in [0, 1], on a patch of the image."""
    fine = np.zeros((height * SUPERSAMPLE, width * SUPERSAMPLE), dtype=np.uint8)
    contours = [(c - (left, top)) * SUPERSAMPLE for c in shape.contours]
    fill(fine, contours, 255)
    line = np.zeros_like(fine)
    thickness = round(SUPERSAMPLE * (1.2 + 0.035 * shape.size))
    for contour in contours:
        draw_line(line, contour, 255, thickness, closed=True)
    rim = shrink(np.minimum(line, fine), SUPERSAMPLE)
    return shrink(fine, SUPERSAMPLE), _unit(rim)


def _shadow(mask: np.ndarray, size: float, light: float) -> np.ndarray:
    """Blurred copy of the mask, moved away from the light; float32 in [0, 1]."""
    soft = blur(mask, 0.8 + 0.035 * size)
    offset = 1 + 0.06 * size
    dx, dy = (-round(offset * v) for v in (math.cos(light), math.sin(light)))
    # The patch is padded by more than the offset: nothing wraps around but zeros.
    return _unit(np.roll(soft, (dy, dx), axis=(0, 1)))


def _surface(
    rng: np.random.Generator, shape: Shape, mask: np.ndarray, light: float, ground: np.ndarray
) -> np.ndarray:
    """Colour of the lit, textured shape on its patch, (3, h, w) float32."""
    height, width = mask.shape
    half = shape.size / 2
    v = ((np.arange(height, dtype=np.float32) + 0.5 - height / 2) / half)[:, None]
    u = ((np.arange(width, dtype=np.float32) + 0.5 - width / 2) / half)[None, :]
    first, second = (c[:, None, None] for c in _colours(rng, shape.kind, ground))
    colour = first + (second - first) * _texture(rng, u, v, half)
    lx, ly = math.cos(light), math.sin(light)
    if CLASS_NAMES[shape.kind] == "circle":  # a ball: bright towards the light, dark away from it
        distance = (u - 0.45 * lx) ** 2 + (v - 0.45 * ly) ** 2
        colour *= 1.22 - 0.42 * distance
        colour += np.clip(1 - distance / 0.09, 0, 1) ** 2 * rng.uniform(40, 130)
    else:
        colour *= 1 + 0.14 * (u * lx + v * ly) + _bevel(mask, shape.size, lx, ly)
    return np.clip(colour, 0, 255)


def _unit(mask: np.ndarray) -> np.ndarray:
    """uint8 to float32 in [0, 1]."""
    return mask.astype(np.float32) / 255


def _bevel(mask: np.ndarray, size: float, lx: float, ly: float) -> np.ndarray:
    """Brightness of a rounded edge: slope of the blurred mask along the light; about -0.4..0.4."""
    sigma = 0.6 + 0.045 * size
    # 16 bit: the slope of an 8-bit blur would show steps on large shapes.
    height = blur(mask.astype(np.uint16) * 256, sigma).astype(np.float32)
    slope = np.zeros_like(height)
    slope[:, 1:-1] += (height[:, 2:] - height[:, :-2]) * -lx
    slope[1:-1] += (height[2:] - height[:-2]) * -ly
    return slope * (0.5 * sigma / 65280)


def _colours(
    rng: np.random.Generator, kind: int, ground: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """A body colour that stands out from ``ground``, and one for the texture."""
    order = rng.permutation(len(COLOURS))
    if rng.random() < IN_CLASS_COLOURS:
        order = rng.permutation(np.array(CLASS_COLOURS[kind]))
    contrast = np.abs(COLOURS[order] - ground).sum(axis=1)
    clear = order[contrast > 130]
    first = COLOURS[clear[0] if len(clear) else order[contrast.argmax()]]
    first = np.clip(first + rng.uniform(-18, 18, 3).astype(np.float32), 0, 255)
    if rng.random() < 0.15:
        return first, COLOURS[rng.integers(len(COLOURS))]
    lighter, darker = first + (255 - first) * 0.45, first * 0.6
    return first, (lighter if rng.random() < 0.5 else darker)


def _texture(rng: np.random.Generator, u: np.ndarray, v: np.ndarray, half: float) -> np.ndarray:
    """Weight of the second colour, (h, w) float32 in [0, 1]; edges about a pixel wide."""
    style = rng.choice(["plain", "stripes", "dots", "fade"], p=[0.5, 0.2, 0.1, 0.2])
    angle, period = rng.uniform(0, 2 * math.pi), rng.uniform(0.25, 0.5)
    c, s = math.cos(angle), math.sin(angle)
    across, along = c * u + s * v, c * v - s * u
    if style == "plain":
        return np.zeros_like(across)
    if style == "fade":
        return np.clip(0.5 + 0.6 * across, 0, 1)
    across, along = (_centred(a / period) for a in (across, along))
    if style == "stripes":
        distance = np.abs(across) - rng.uniform(0.1, 0.25)
    else:
        distance = np.sqrt(across * across + along * along) - rng.uniform(0.2, 0.32)
    return np.clip(0.5 - distance * (period * half), 0, 1)


def _centred(values: np.ndarray) -> np.ndarray:
    """Distance to the nearest integer, signed, in [-0.5, 0.5]."""
    return values - np.rint(values)


def _rotate(points: np.ndarray, angle: float) -> np.ndarray:
    """Turn (..., 2) points around the origin."""
    c, s = math.cos(angle), math.sin(angle)
    x, y = points[..., 0], points[..., 1]
    return np.stack([c * x - s * y, s * x + c * y], axis=-1)
