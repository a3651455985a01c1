"""What objects are taken for, with background: a confusion matrix that agrees with recall.

COCO's matches within a class come first, so that the diagonal is the number of true positives.
What is left over is then matched across classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .assignment import Assignment

__all__ = ["BACKGROUND", "MISSED", "ClassConfusion", "confuse_classes"]

BACKGROUND, MISSED = "background", "missed"


@dataclass(frozen=True)
class ClassConfusion:
    """Counts of (what it is, what it is detected as), of which most are 0 and left out.

    Attributes:
        names: (K,), of the classes.
        thresholds: (K,), scores from which detections of each class are counted.
        actual: (C,), class index of a cell's objects; K for background.
        detected: (C,), class index of a cell's detections; K for a missed object.
        count: (C,), at least 1.
        taken_for: (N,), class index that each object is detected as; K for one that is missed, and
            for a crowd.
    """

    names: Sequence[str]
    thresholds: np.ndarray
    actual: np.ndarray
    detected: np.ndarray
    count: np.ndarray
    taken_for: np.ndarray

    def matrix(self) -> np.ndarray:
        """(K + 1, K + 1), rows: classes and background; columns: classes and missed."""
        size = len(self.names) + 1
        dense = np.zeros((size, size), np.int64)
        dense[self.actual, self.detected] = self.count
        return dense

    def most_confused(self, most: int = 30) -> list[tuple[str, str, int]]:
        """(class, what it is taken for, how often), most often first; without background."""
        size = len(self.names)
        rows = (self.actual != self.detected) & (self.actual < size) & (self.detected < size)
        pairs = zip(self.actual[rows], self.detected[rows], self.count[rows], strict=True)
        ordered = sorted(pairs, key=lambda x: (-x[2], x[0], x[1]))[:most]
        return [(self.names[a], self.names[d], int(n)) for a, d, n in ordered]


def confuse_classes(
    assignment: Assignment, thresholds: float | Sequence[float] | np.ndarray
) -> ClassConfusion:
    """Count what objects are detected as.

    First, the true positives within a class. Then each other detection, the surest first, gets the
    object of another class that it overlaps most, by at least the assignment's IoU, and that nobody
    has. A detection that gets none is on background, an object that nobody gets is missed. What
    matches a crowd is not counted.

    Args:
        assignment: of the detections.
        thresholds: scores from which detections are counted: one, or (K,) for the classes.
    """
    tables, pairs = assignment.tables, assignment.tables.overlaps
    detections, objects, size = tables.detections, tables.objects, tables.num_classes
    limits = np.broadcast_to(np.asarray(thresholds, np.float64), (size,))
    shown = detections.score >= limits[detections.label]
    right, wrong = assignment.right & shown, assignment.wrong & shown
    free = ~objects.crowd
    free[assignment.object_of[right]] = False
    taken_for = np.full(len(objects.label), size)
    taken_for[assignment.object_of[right]] = detections.label[right]
    on_background = wrong.copy()
    wanted = (pairs.iou >= min(assignment.iou, 1 - 1e-10)) & wrong[pairs.detection]
    wanted &= free[pairs.object]
    wanted &= detections.label[pairs.detection] != objects.label[pairs.object]
    rows = np.flatnonzero(wanted)
    d, n, iou = pairs.detection[rows], pairs.object[rows], pairs.iou[rows]
    order = np.lexsort((-iou, d, -detections.score[d]))
    for one, other in zip(d[order].tolist(), n[order].tolist(), strict=True):
        if on_background[one] and free[other]:
            on_background[one] = free[other] = False
            taken_for[other] = detections.label[one]
    real = ~objects.crowd
    false = detections.label[on_background]
    actual = np.concatenate([objects.label[real], np.full(len(false), size)])
    detected = np.concatenate([taken_for[real], false])
    cells, count = np.unique(actual * (size + 1) + detected, return_counts=True)
    actual, detected = cells // (size + 1), cells % (size + 1)
    return ClassConfusion(tables.names, limits, actual, detected, count, taken_for)
