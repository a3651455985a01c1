"""Backgrounds of the quickstart scenes: coloured noise with drawn clutter that is no object.

Only element-wise arithmetic and fixed-point drawing are used, so that a seed gives the same pixels
everywhere; scalars are plain floats, which numpy 1 and 2 treat alike. Images are RGB with the
channels first, (3, H, W): numpy is several times faster along rows than along three channels.
"""

from __future__ import annotations

import math

import numpy as np

from .raster import draw_line, fill

__all__ = ["draw_backdrop", "value_noise"]

# Three colours each: two that the noise blends, one for veins and clutter. Muted on purpose: the
# objects carry the saturated colours.
PALETTES = np.array(
    [
        [(38, 52, 68), (78, 104, 120), (176, 190, 184)],  # slate
        [(196, 182, 158), (226, 214, 192), (140, 120, 98)],  # sand
        [(56, 74, 58), (118, 138, 104), (206, 206, 160)],  # moss
        [(70, 50, 66), (134, 98, 116), (222, 188, 182)],  # mauve
        [(204, 212, 218), (166, 182, 194), (96, 116, 136)],  # fog
        [(92, 66, 50), (156, 118, 88), (226, 196, 156)],  # walnut
        [(28, 30, 48), (62, 66, 104), (150, 146, 190)],  # night
        [(216, 196, 190), (188, 156, 156), (124, 92, 100)],  # rose
        [(32, 66, 72), (74, 126, 126), (184, 212, 196)],  # sea
        [(210, 208, 176), (172, 176, 136), (104, 116, 88)],  # lichen
    ],
    dtype=np.float32,
)
DISC = np.array([(math.cos(a * math.pi / 6), math.sin(a * math.pi / 6)) for a in range(12)])


def draw_backdrop(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Draw a textured, cluttered background.

    Args:
        rng: source of all choices.
        height, width: size in pixels.

    Returns:
        (3, height, width) float32 RGB in [0, 255].
    """
    dark, light, accent = PALETTES[rng.integers(len(PALETTES))][..., None, None]
    image = dark + (light - dark) * _pattern(rng, height, width)
    veil = np.clip(value_noise(rng, height, width, 90.0, 90.0, octaves=2) * 1.6 - 0.6, 0, 1)
    image += (accent - image) * (veil * rng.uniform(0.2, 0.7))
    image *= _light_falloff(rng, height, width)
    canvas = np.ascontiguousarray(np.clip(image, 0, 255).astype(np.uint8).transpose(1, 2, 0))
    canvas = _draw_clutter(rng, canvas, accent.ravel())
    return canvas.transpose(2, 0, 1).astype(np.float32, order="C")


def value_noise(
    rng: np.random.Generator,
    height: int,
    width: int,
    cell_h: float,
    cell_w: float,
    octaves: int = 4,
) -> np.ndarray:
    """Sum octaves of smoothly interpolated random lattices, each with half the cell and amplitude.

    Args:
        rng: source of the lattices.
        height, width: size in pixels.
        cell_h, cell_w: lattice spacing of the first octave in pixels.
        octaves: how many lattices to sum.

    Returns:
        (height, width) float32 in [0, 1].
    """
    total = np.zeros((height, width), dtype=np.float32)
    norm = 0.0
    for octave in range(octaves):
        amplitude = 0.55**octave
        y0, fy = _lattice(rng, height, max(cell_h / 2**octave, 1.0))
        x0, fx = _lattice(rng, width, max(cell_w / 2**octave, 1.0))
        grid = rng.random((y0[-1] + 2, x0[-1] + 2), dtype=np.float32)
        rows = grid[y0] + (grid[y0 + 1] - grid[y0]) * fy[:, None]
        left = rows[:, x0]
        total += amplitude * (left + (rows[:, x0 + 1] - left) * fx)
        norm += amplitude
    return total / norm


def _lattice(rng: np.random.Generator, size: int, cell: float) -> tuple[np.ndarray, np.ndarray]:
    """Lattice index and eased fraction of every pixel along one axis, with a random phase."""
    position = np.arange(size) / cell + rng.random()
    index = position.astype(np.int64)
    fraction = (position - index).astype(np.float32)
    return index, fraction * fraction * (3 - 2 * fraction)


def _pattern(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Blend weight of the two ground colours, (height, width) in [0, 1]: one of four materials."""
    style = rng.choice(["cloud", "agate", "grain", "weave"])
    cell = rng.uniform(40, 120)
    if style == "grain":  # wood or brushed metal: noise stretched along one axis
        cells = (cell * 2.5, cell / 6) if rng.random() < 0.5 else (cell / 6, cell * 2.5)
        return value_noise(rng, height, width, *cells, octaves=4)
    noise = value_noise(rng, height, width, cell, cell, octaves=5)
    if style == "agate":  # contour bands of the noise
        phase = noise * rng.uniform(3, 8)
        bands = np.abs(2 * (phase - np.floor(phase)) - 1)
        return 0.65 * bands + 0.35 * noise
    if style == "weave":
        fine = value_noise(rng, height, width, 3.0, 26.0, octaves=2)
        return 0.5 * noise + 0.5 * np.maximum(fine, value_noise(rng, height, width, 26.0, 3.0, 2))
    return np.clip(1.6 * noise - 0.3, 0, 1)


def _light_falloff(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Brightness factor that falls off softly from a random point, (height, width)."""
    y = ((np.arange(height) + 0.5) / height - rng.random())[:, None]
    x = ((np.arange(width) + 0.5) / width - rng.random())[None, :]
    distance = np.sqrt(y * y + x * x)
    return (1.12 - rng.uniform(0.1, 0.4) * distance).astype(np.float32)


def _draw_clutter(rng: np.random.Generator, image: np.ndarray, accent: np.ndarray) -> np.ndarray:
    """Draw strokes, arcs, specks and flat blobs over (H, W, 3) uint8; none is an object."""
    size = np.array([image.shape[1], image.shape[0]])
    painters = (_stroke, _arc, _speck, _blob)
    for painter, most in zip(painters, (5, 3, 24, 3), strict=True):
        layer = image.copy()
        for _ in range(rng.integers(most + 1)):
            tint = accent + rng.uniform(-70, 70) + rng.uniform(-30, 30, 3)
            painter(rng, layer, size, [int(c) for c in np.clip(tint, 0, 255)])
        # Weights in 1/16 keep the blend in integers.
        alpha = int(rng.integers(4, 9))
        mixed = layer.astype(np.uint16) * alpha + image.astype(np.uint16) * (16 - alpha) + 8
        image = (mixed >> 4).astype(np.uint8)
    return image


def _stroke(rng: np.random.Generator, layer: np.ndarray, size: np.ndarray, tint: list) -> None:
    """A bent line: a quadratic Bezier curve through three random points."""
    start = rng.random(2) * size
    middle, end = start + rng.uniform(-70, 70, 2), start + rng.uniform(-140, 140, 2)
    t = np.linspace(0, 1, 24)[:, None]
    points = (1 - t) ** 2 * start + 2 * t * (1 - t) * middle + t**2 * end
    draw_line(layer, points, tint, thickness=int(rng.integers(1, 4)))


def _arc(rng: np.random.Generator, layer: np.ndarray, size: np.ndarray, tint: list) -> None:
    """A thin open arc of at most 200 degrees, so that it is not taken for a ring."""
    begin, extent = rng.uniform(0, 2 * math.pi), rng.uniform(0.7, 3.5)
    angles = [begin + extent * i / 32 for i in range(33)]
    circle = np.array([(math.cos(a), math.sin(a)) for a in angles])
    points = rng.random(2) * size + circle * rng.uniform(8, 60, 2)
    draw_line(layer, points, tint, thickness=int(rng.integers(1, 4)))


def _speck(rng: np.random.Generator, layer: np.ndarray, size: np.ndarray, tint: list) -> None:
    """A dot of at most 5 px, well below the smallest object."""
    fill(layer, [rng.random(2) * size + DISC * rng.uniform(0.6, 2.5)], tint)


def _blob(rng: np.random.Generator, layer: np.ndarray, size: np.ndarray, tint: list) -> None:
    """A flat, lobed shape like a stain."""
    lobes, wobble = int(rng.integers(3, 6)), rng.uniform(0.25, 0.45)
    phase, radius = rng.uniform(0, 2 * math.pi), rng.uniform(8, 45)
    stretch = rng.uniform(0.4, 1.0, 2)
    outline = []
    for i in range(48):
        a = 2 * math.pi * i / 48
        r = radius * (1 + wobble * math.sin(lobes * a + phase) + 0.2 * math.sin(a * 2 - phase))
        outline.append((r * math.cos(a), r * math.sin(a)))
    points = rng.random(2) * size + np.array(outline) * stretch
    fill(layer, [points], tint)
