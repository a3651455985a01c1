"""How well anchors fit objects, in what training needs of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from ..boxes import AnchorLevel, best_anchor_iou
from .coverage import SIZES, size_classes

__all__ = [
    "ENOUGH",
    "IOU_TOLERANCE",
    "POSITIVES_TOLERANCE",
    "RECALL_TOLERANCE",
    "Fit",
    "SizeFit",
    "enough_positives",
    "expected_positives",
]

ENOUGH = 4
"""Positive anchors of an object that learn it well; of fewer, single ones decide."""

ENOUGH_WEIGHT = 0.5  # of the share with so many beside recall and mean best IoU

# What the objects of a size may lose.
RECALL_TOLERANCE = 0.005
IOU_TOLERANCE = 0.005
POSITIVES_TOLERANCE = 0.1  # share of the mean number of positive anchors

# What training notices, on all objects: with half of it AP did not rise, since an object without
# an anchor from the threshold on still has a low-quality match.
CLEAR_RECALL, CLEAR_ENOUGH, CLEAR_IOU = 0.1, 0.15, 0.05
CLEAR_FOR_SIZE = 2  # times as much, on the objects of a size that is not rare
RARE = 0.2  # share of all objects


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
class SizeFit:
    """How anchors fit the objects of one of ``SIZES``.

    Attributes:
        share: of all objects.
        recall, enough, mean_best_iou: as of :class:`Fit`.
        positives: mean of :func:`expected_positives`.
    """

    share: float
    recall: float
    enough: float
    mean_best_iou: float
    positives: float

    def lost(self, floor: SizeFit) -> float:
        """By how much it is below ``floor`` beyond the tolerances; 0 where it is not."""
        least = floor.positives * (1 - POSITIVES_TOLERANCE)
        return (
            _below(self.recall, floor.recall - RECALL_TOLERANCE)
            + _below(self.mean_best_iou, floor.mean_best_iou - IOU_TOLERANCE)
            + _below(self.positives, least) / max(least, 1)
        )


@dataclass(frozen=True)
class Fit:
    """How anchors fit objects: ``recall``, the share with a best IoU from the threshold on;
    ``enough``, the share that can expect :data:`ENOUGH` positive ones; the mean of the best IoU;
    and the same by size in pixels of the network's input, for the sizes that objects have."""

    recall: float
    enough: float
    mean_best_iou: float
    by_size: Mapping[str, SizeFit] = field(default_factory=dict)

    @classmethod
    def of(
        cls, boxes: np.ndarray, sizes: np.ndarray, levels: Sequence[AnchorLevel], iou: float
    ) -> Fit:
        """Of boxes (n, 4) in views of padded sizes (n, 2)."""
        best = best_anchor_iou(boxes, sizes, levels)
        found, positives = best >= iou, expected_positives(boxes, levels, iou)
        enough, size_of = positives >= ENOUGH, size_classes(boxes)
        columns = np.stack([found, enough, best, positives])
        groups = [(name, size_of == i) for i, name in enumerate(SIZES)]
        by_size = {
            name: SizeFit(float(of.mean()), *columns[:, of].mean(axis=1).tolist())
            for name, of in groups
            if of.any()
        }
        recall, of_enough, mean_best_iou = columns[:3].mean(axis=1).tolist()
        return cls(recall, of_enough, mean_best_iou, by_size)

    @property
    def gain(self) -> float:
        """What is maximised."""
        return self.recall + ENOUGH_WEIGHT * self.enough + self.mean_best_iou

    def lost(self, floor: Fit) -> float:
        """By how much it is below ``floor``: at all for all objects together (rounding is no loss),
        and beyond the tolerances for those of a size. 0 where nothing is lost."""
        of_all = _below(self.recall, floor.recall) + _below(self.mean_best_iou, floor.mean_best_iou)
        pairs = [(self.by_size[name], x) for name, x in floor.by_size.items()]
        return of_all + sum(after.lost(before) for after, before in pairs)

    def loses(self, floor: Fit) -> bool:
        """Whether all objects together, or those of a size, are fitted worse."""
        return self.lost(floor) > 0

    def is_better(self, floor: Fit) -> bool:
        """Whether training would notice, on all objects or on those of a size that is not rare."""
        sizes = [(self.by_size[x], old) for x, old in floor.by_size.items() if old.share >= RARE]
        return _clearly(self, floor, 1) or any(_clearly(*x, CLEAR_FOR_SIZE) for x in sizes)


def _below(number: float, least: float) -> float:
    """How far, beyond rounding."""
    return max(0.0, least - number - 1e-9)


def _clearly(after: Fit | SizeFit, before: Fit | SizeFit, times: float) -> bool:
    return (
        after.recall > before.recall + CLEAR_RECALL * times
        or after.enough > before.enough + CLEAR_ENOUGH * times
        or after.mean_best_iou > before.mean_best_iou + CLEAR_IOU * times
    )
