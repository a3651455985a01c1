"""Anchors of any widths and heights, by k-means on the IoU of shapes, as YOLO finds its own.

The distance of two shapes is 1 minus the IoU of boxes of these shapes with one centre (arXiv
1612.08242, Sec. 2). The smallest shapes become those of the finest level, and so on, so anchors
need keep no octaves: they are MODEL.ANCHOR_GENERATOR.CELL_ANCHORS.

Letters: n boxes, k shapes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from detectron2.config import get_cfg as get_detectron2_cfg

from ..boxes import AnchorLevel
from ..errors import InputError
from ..modeling.anchor_sizes import SCALES_PER_OCTAVE

__all__ = [
    "SHAPE_KMEANS",
    "ShapeSearch",
    "cell_anchor_keys",
    "kmeans_shapes",
    "search_shapes",
    "shape_iou",
]

SHAPE_KMEANS = "kmeans-shape"
"""Name of the method on the command line."""

STARTS = 8  # first shapes drawn anew; the best end is taken
ROUNDS = 100  # at most


def shape_iou(sizes: np.ndarray, shapes: np.ndarray) -> np.ndarray:
    """IoU (n, k) of boxes with one centre, of widths and heights (n, 2) and (k, 2)."""
    common = np.minimum(sizes[:, None], shapes).prod(axis=2)
    return common / (sizes.prod(axis=1)[:, None] + shapes.prod(axis=1) - common)


def kmeans_shapes(sizes: np.ndarray, count: int, seed: int = 0) -> np.ndarray:
    """Shapes (k, 2) with a high mean of the best IoU over boxes, by area.

    Args:
        sizes: (n, 2) widths and heights, px, above 0.
        count: k.
        seed: the result is the same for the same one.

    Raises:
        InputError: there are fewer different shapes than that.
    """
    different = len(np.unique(sizes, axis=0))
    if count > different:
        raise InputError(
            f"{count} shapes are asked for, but the objects have {different} different ones; ask "
            "for fewer per level"
        )
    rng = np.random.default_rng(seed)
    ends = [_kmeans(sizes, _spread(sizes, count, rng)) for _ in range(STARTS)]
    return max(ends, key=lambda shapes: shape_iou(sizes, shapes).max(axis=1).mean())


def _spread(sizes: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """First shapes, each likelier the worse those before fit it (k-means++)."""
    chosen = [sizes[rng.integers(len(sizes))]]
    while len(chosen) < count:
        distance = 1 - shape_iou(sizes, np.array(chosen)).max(axis=1)
        distance = np.maximum(distance, 0) ** 2
        chosen.append(sizes[rng.choice(len(sizes), p=distance / distance.sum())])
    return np.array(chosen)


def _kmeans(sizes: np.ndarray, shapes: np.ndarray) -> np.ndarray:
    """The best shapes on the way of the medians of the boxes that each fits best."""
    best, best_mean, before = shapes, -1.0, None
    for _ in range(ROUNDS):
        iou = shape_iou(sizes, shapes)
        if (mean := iou.max(axis=1).mean()) > best_mean:
            best, best_mean = shapes, mean
        cluster = iou.argmax(axis=1)
        if before is not None and (cluster == before).all():
            break
        before = cluster
        shapes = np.array(
            [
                np.median(sizes[cluster == i], axis=0) if (cluster == i).any() else shape
                for i, shape in enumerate(shapes)
            ]
        )
    return best[np.argsort(best.prod(axis=1), kind="stable")]


@dataclass(frozen=True)
class ShapeSearch:
    """What :func:`search_shapes` found.

    Attributes:
        levels: the anchors, those of before where nothing is better.
        before, after: mean over the boxes of the best IoU of shapes.
    """

    levels: list[AnchorLevel]
    before: float
    after: float

    @property
    def is_better(self) -> bool:
        """Whether the anchors are new."""
        return self.after > self.before


def search_shapes(
    boxes: np.ndarray, levels: Sequence[AnchorLevel], per_level: int | None = None, seed: int = 0
) -> ShapeSearch:
    """Anchors of other shapes, where their mean best shape IoU is higher than that of the present.

    Args:
        boxes: (n, 4) XYXY with area, in pixels of the network's input.
        levels: the present anchors.
        per_level: anchors per location of each level; as many as now by default.
        seed: of :func:`kmeans_shapes`.
    """
    if per_level is not None and per_level < 1:
        raise InputError(f"the number of shapes per level must be at least 1, got {per_level}")
    sizes = boxes[:, 2:] - boxes[:, :2]
    counts = [per_level or len(level.cells) for level in levels]
    present = np.concatenate([_sizes_of(level) for level in levels])
    shapes = kmeans_shapes(sizes, sum(counts), seed).round(1)
    before, after = (float(shape_iou(sizes, x).max(axis=1).mean()) for x in (present, shapes))
    if after <= before:
        return ShapeSearch(list(levels), before, before)
    parts = np.split(shapes, np.cumsum(counts)[:-1])
    found = [
        AnchorLevel(level.stride, np.concatenate([-part, part], axis=1) / 2, level.offset)
        for level, part in zip(levels, parts, strict=True)
    ]
    return ShapeSearch(found, before, after)


def _sizes_of(level: AnchorLevel) -> np.ndarray:
    cells = np.asarray(level.cells, dtype=float)
    return cells[:, 2:] - cells[:, :2]


def cell_anchor_keys(levels: Sequence[AnchorLevel]) -> dict[str, Any]:
    """The keys of MODEL.ANCHOR_GENERATOR that give these anchors, whatever they were before."""
    defaults = get_detectron2_cfg().MODEL.ANCHOR_GENERATOR
    return {
        "NAME": "RetinaNetAnchorGenerator",
        "OCTAVE_BASE_SIZES": [],
        "SCALES_PER_OCTAVE": SCALES_PER_OCTAVE,
        "SCALES_OF_LEVELS": [],
        "SIZES": defaults.SIZES,
        "ASPECT_RATIOS": defaults.ASPECT_RATIOS,
        "CELL_ANCHORS": [np.round(level.cells, 2).tolist() for level in levels],
    }
