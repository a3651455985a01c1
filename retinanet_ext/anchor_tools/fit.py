"""How well anchors fit objects, in what training needs of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..boxes import AnchorLevel, best_anchor_iou

__all__ = ["ENOUGH", "Fit", "enough_positives", "expected_positives"]

ENOUGH = 4
"""Positive anchors of an object that learn it well; of fewer, single ones decide."""

ENOUGH_WEIGHT = 0.5  # of the share with so many beside recall and mean best IoU


def expected_positives(
    boxes: np.ndarray, levels: Sequence[AnchorLevel], iou: float = 0.5
) -> np.ndarray:
    """Mean number of anchors with IoU ``iou`` or more, over all places an object may have.

    For an anchor of given width and height, the IoU only depends on how far its centre is from the
    object's. Where it is high enough, centres fill an area; there is one for each square of the
    stride. With a and b half of how much widths and heights differ, m and n the smaller ones, and c
    the share of m * n that has to overlap, that area is, by integrating over one quarter,

        4 * (a * (b + n * (1 - c)) + m * (b * (1 - c) + n * (1 - c + c * ln c))).

    Args:
        boxes: (n, 4) XYXY with area, in pixels of the network's input.
        levels: the anchors. Those that reach over the picture's border count too.
        iou: from which on an anchor is positive.

    Returns:
        (n,) float64.
    """
    size = boxes[:, 2:] - boxes[:, :2]
    total = np.zeros(len(boxes))
    for level in levels:
        for cell in np.asarray(level.cells, dtype=float):
            anchor = cell[2:] - cell[:2]
            (a, b), (m, n) = np.abs(size - anchor).T / 2, np.minimum(size, anchor).T
            share = iou / (1 + iou) * (size.prod(axis=1) + anchor.prod()) / (m * n)
            c = np.clip(share, 1e-9, 1)  # 1: the one does not fit into the other, so none
            quarter = a * (b + n * (1 - c)) + m * (b * (1 - c) + n * (1 - c + c * np.log(c)))
            total += np.where(share < 1, 4 * quarter / level.stride**2, 0)
    return total


def enough_positives(
    boxes: np.ndarray, levels: Sequence[AnchorLevel], iou: float = 0.5
) -> np.ndarray:
    """(n,) bool: whether an object can expect ``ENOUGH`` positive anchors."""
    return expected_positives(boxes, levels, iou) >= ENOUGH


@dataclass(frozen=True)
class Fit:
    """How anchors fit objects: ``recall``, the share with a best IoU from the threshold on;
    ``enough``, the share that can expect :data:`ENOUGH` positive ones; and the mean of
    the best IoU."""

    recall: float
    enough: float
    mean_best_iou: float

    @classmethod
    def of(
        cls, boxes: np.ndarray, sizes: np.ndarray, levels: Sequence[AnchorLevel], iou: float
    ) -> Fit:
        """Of boxes (n, 4) in views of padded sizes (n, 2)."""
        best = best_anchor_iou(boxes, sizes, levels)
        enough = enough_positives(boxes, levels, iou)
        return cls(float((best >= iou).mean()), float(enough.mean()), float(best.mean()))

    @property
    def gain(self) -> float:
        """What is maximised."""
        return self.recall + ENOUGH_WEIGHT * self.enough + self.mean_best_iou

    def loses(self, floor: Fit) -> bool:
        """Whether recall or mean best IoU is lower; rounding is no loss."""
        lower_iou = self.mean_best_iou < floor.mean_best_iou - 1e-9
        return lower_iou or self.recall < floor.recall

    def is_better(self, floor: Fit) -> bool:
        """Whether training would notice."""
        return (
            self.recall > floor.recall + 0.002
            or self.enough > floor.enough + 0.02
            or self.mean_best_iou > floor.mean_best_iou + 0.01
        )
