"""Which sizes and shapes of objects are found: recall over octaves of size and aspect ratio."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .assignment import Assignment

__all__ = ["ShapeRecall", "recall_by_shape"]

MOST_RATIO = 3  # in powers of two; what is longer counts there


@dataclass(frozen=True)
class ShapeRecall:
    """A grid of S octaves of size by R aspect ratios.

    Attributes:
        sizes: (S + 1,), edges of the rows: the square root of the area, in pixels.
        ratios: (R,), height / width in the middle of the columns, each an octave wide; the outer
            ones hold everything beyond.
        count: (S, R), objects.
        found: (S, R), those that are found.
        anchor_iou: (S, R), mean over the objects of the IoU with the anchor that fits best; NaN
            without objects, None where the anchors are not known.
    """

    sizes: np.ndarray
    ratios: np.ndarray
    count: np.ndarray
    found: np.ndarray
    anchor_iou: np.ndarray | None = None

    @property
    def recall(self) -> np.ndarray:
        """(S, R), in [0, 1]; NaN where there are no objects."""
        return self.found / np.where(self.count > 0, self.count, np.nan)


def recall_by_shape(
    assignment: Assignment,
    thresholds: float | Sequence[float] | np.ndarray = 0.0,
    scales: np.ndarray | None = None,
    anchor_iou: np.ndarray | None = None,
) -> ShapeRecall:
    """Recall of the detections from the thresholds on, by the shape of the objects.

    Objects without an area are left out.

    Args:
        assignment: of the detections.
        thresholds: of the score: one, or (K,) for the classes.
        scales: (I,), size of an image as the network sees it over its own; sizes are then in pixels
            of the network's input.
        anchor_iou: (N,), IoU of each object with the anchor that fits it best.
    """
    tables = assignment.tables
    objects, detections = tables.objects, tables.detections
    limits = np.broadcast_to(np.asarray(thresholds, np.float64), (tables.num_classes,))
    sides = objects.box[:, 2:]
    rows = np.flatnonzero(~objects.crowd & (sides > 0).all(axis=1))
    width, height = sides[rows].T
    size = np.sqrt(width * height)
    if scales is not None:
        size = size * np.asarray(scales)[objects.image[rows]]
    finder = assignment.detection_of[rows]
    score = np.append(detections.score, -np.inf)[finder]  # -1 is the last
    found = score >= limits[objects.label[rows]]
    octave = np.floor(np.log2(size)).astype(np.int64)
    low, high = (int(octave.min()), int(octave.max()) + 1) if len(rows) else (0, 0)
    ratio = np.clip(np.rint(np.log2(height / width)), -MOST_RATIO, MOST_RATIO).astype(np.int64)
    shape = (high - low, 2 * MOST_RATIO + 1)
    cell = (octave - low) * shape[1] + ratio + MOST_RATIO
    grids = [
        np.bincount(cell, weight, shape[0] * shape[1]).astype(np.int64).reshape(shape)
        for weight in (None, found)
    ]
    ratios = 2.0 ** np.arange(-MOST_RATIO, MOST_RATIO + 1)
    mean = None
    if anchor_iou is not None:
        total = np.bincount(cell, np.asarray(anchor_iou)[rows], shape[0] * shape[1]).reshape(shape)
        mean = total / np.where(grids[0] > 0, grids[0], np.nan)
    return ShapeRecall(2.0 ** np.arange(low, high + 1), ratios, grids[0], grids[1], mean)
