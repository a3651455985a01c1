"""Precision, recall and F1 over the score, the best threshold, and AP at one IoU.

The points of a curve lie at scores that differ: detections with equal scores pass a threshold
together, so that what a point says is what detections from that score on have.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .assignment import Assignment

__all__ = [
    "FALLBACK_THRESHOLD",
    "Curve",
    "average_precision",
    "best_thresholds",
    "class_curves",
    "make_curve",
    "pooled_curve",
]

FALLBACK_THRESHOLD = 0.5  # where nothing at all was found
RECALLS = np.linspace(0.0, 1.0, 101)  # COCO's


@dataclass(frozen=True)
class Curve:
    """What is found with a score threshold at each of M scores.

    Attributes:
        score: (M,), descending.
        right: (M,), true positives with at least this score.
        wrong: (M,), false positives with at least this score.
        num_objects: objects that are to be found.
    """

    score: np.ndarray
    right: np.ndarray
    wrong: np.ndarray
    num_objects: int

    @property
    def precision(self) -> np.ndarray:
        """(M,), in [0, 1]."""
        return self.right / (self.right + self.wrong)

    @property
    def recall(self) -> np.ndarray:
        """(M,), in [0, 1]; NaN without objects."""
        if self.num_objects == 0:
            return np.full(len(self.score), np.nan)
        return self.right / self.num_objects

    @property
    def f1(self) -> np.ndarray:
        """(M,), harmonic mean of precision and recall, 0 where nothing is right."""
        return 2 * self.right / (self.right + self.wrong + self.num_objects)

    def at(self, threshold: float) -> tuple[float, float, float]:
        """Precision, recall and F1 of the detections with at least this score.

        Precision is NaN without any, recall and F1 are NaN without objects.
        """
        point = int(np.searchsorted(-self.score, -threshold, side="right")) - 1
        right, wrong = (int(self.right[point]), int(self.wrong[point])) if point >= 0 else (0, 0)
        precision = right / (right + wrong) if right + wrong else float("nan")
        if self.num_objects == 0:
            return precision, float("nan"), float("nan")
        f1 = 2 * right / (right + wrong + self.num_objects)
        return precision, right / self.num_objects, f1

    def best(self) -> float | None:
        """The score at which F1 is highest, the higher one of equals; None if nothing is right."""
        if self.num_objects == 0 or not self.right.any():
            return None
        return float(self.score[int(np.argmax(self.f1))])


def make_curve(score: np.ndarray, right: np.ndarray, num_objects: int) -> Curve:
    """The curve of detections.

    Args:
        score: (D,), descending.
        right: (D,), bool.
        num_objects: objects that are to be found.
    """
    last = np.flatnonzero(np.append(score[1:] != score[:-1], True)[: len(score)])
    number = np.arange(1, len(score) + 1)
    found = np.cumsum(right)
    return Curve(score[last], found[last], (number - found)[last], num_objects)


def class_curves(assignment: Assignment) -> list[Curve]:
    """(K,), the curve of each class."""
    tables, rows = assignment.tables, assignment.by_class
    score, right = tables.detections.score[rows], assignment.right[rows]
    ends = np.searchsorted(tables.detections.label[rows], np.arange(tables.num_classes + 1))
    return [
        make_curve(score[first:last], right[first:last], int(n))
        for first, last, n in zip(ends[:-1], ends[1:], tables.num_objects, strict=True)
    ]


def pooled_curve(assignment: Assignment) -> Curve:
    """The curve of all classes together: the micro-average."""
    score = assignment.tables.detections.score
    rows = np.sort(assignment.by_class)
    rows = rows[np.argsort(-score[rows], kind="stable")]
    return make_curve(score[rows], assignment.right[rows], int(assignment.tables.num_objects.sum()))


def best_thresholds(curves: Sequence[Curve], pooled: Curve) -> np.ndarray:
    """(K,), the score threshold of each class at which its F1 is highest.

    A class of which nothing was found, or that has no objects, gets that of the pooled detections,
    and where nothing at all was found FALLBACK_THRESHOLD.
    """
    common = pooled.best()
    common = FALLBACK_THRESHOLD if common is None else common
    own = [curve.best() for curve in curves]
    return np.array([common if x is None else x for x in own], np.float64)


def average_precision(label: np.ndarray, right: np.ndarray, num_objects: np.ndarray) -> np.ndarray:
    """COCO's AP at one IoU, of all classes at once.

    Args:
        label: (D,), class of each right or wrong detection, ascending; within one, the detections
            have descending scores.
        right: (D,), bool.
        num_objects: (K,), objects that are to be found.

    Returns:
        (K,), in [0, 1]; NaN for a class without objects.
    """
    hits = np.flatnonzero(right)
    of_class = label[hits]
    found = np.arange(len(hits)) - np.searchsorted(of_class, of_class) + 1
    precision = found / (hits - np.searchsorted(label, of_class) + 1)
    num_classes = len(num_objects)
    best = best_from_here(precision, of_class, num_classes)
    steps = recalls_up_to(found, num_objects[of_class])
    steps -= recalls_up_to(found - 1, num_objects[of_class])
    total = np.bincount(of_class, best * steps, num_classes) / len(RECALLS)
    return np.where(num_objects > 0, total, np.nan)


def recalls_up_to(found: np.ndarray, num_objects: np.ndarray) -> np.ndarray:
    """How many of COCO's 101 recalls are reached with so many objects found; 0 with none.

    The comparison is that of pycocotools, to the last bit.
    """
    reached = np.searchsorted(RECALLS, found / np.maximum(num_objects, 1), side="right")
    return np.where(found > 0, reached, 0)


def best_from_here(precision: np.ndarray, segment: np.ndarray, num_segments: int) -> np.ndarray:
    """The highest precision at each place or later in its segment.

    Args:
        precision: (M,), in [0, 1].
        segment: (M,), ascending, below ``num_segments``.
    """
    # One pass from the end: each segment is lifted above the ones behind it. That rounds to
    # 1e-16 times the number of segments.
    lift = 2.0 * (num_segments - segment)
    return np.maximum.accumulate((precision + lift)[::-1])[::-1] - lift
