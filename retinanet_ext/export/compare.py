"""How far two sets of boxes differ, whatever their order."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from detectron2.structures import Instances

__all__ = ["PIXELS", "SCORE", "Differences", "compare_sets"]

PIXELS, SCORE = 1e-2, 1e-5
"""Two boxes of one class that differ by no more are the same."""


@dataclass
class Differences:
    """Between the boxes of one side and their counterparts on the other.

    Attributes:
        pixels, score: the largest difference of a coordinate and of a score.
        count: boxes that were looked at, of both sides.
        missing: those that have no counterpart.
    """

    pixels: float = 0.0
    score: float = 0.0
    count: int = 0
    missing: int = 0

    @property
    def allowed(self) -> int:
        """One in a thousand may be missing: a score or an IoU on the edge of a threshold."""
        return math.ceil(self.count / 1000)


def compare_sets(
    expected: list[Instances], got: list[Instances], edge: float = 0.0, most: int = 0
) -> Differences:
    """Compare boxes of the same images.

    Args:
        expected, got: with ``pred_boxes``, ``scores`` and ``pred_classes``.
        edge: a score at which lists end: what is within rounding of it may be on one side only.
        most: the length at which a list ends with its lowest score; 0: none does.
    """
    found = Differences()
    for theirs, ours in zip(expected, got, strict=True):
        ends = [edge] + [float(x.scores.min()) for x in (theirs, ours) if most and len(x) >= most]
        for left, right in ((theirs, ours), (ours, theirs)):
            _compare(left, right, max(ends) + SCORE, found)
    return found


def _compare(left: Instances, right: Instances, edge: float, found: Differences) -> None:
    """Look for each box of ``left`` in ``right``."""
    boxes, others = left.pred_boxes.tensor.numpy(), right.pred_boxes.tensor.numpy()
    scores, other_scores = left.scores.numpy(), right.scores.numpy()
    classes, other_classes = left.pred_classes.numpy(), right.pred_classes.numpy()
    found.count += len(boxes)
    for box, score, class_ in zip(boxes, scores, classes, strict=True):
        same = other_classes == class_
        pixels = np.abs(others[same] - box).max(axis=1, initial=0)
        apart = np.abs(other_scores[same] - score)
        # The nearest in both: there may be several boxes at one place.
        distance = np.maximum(pixels / PIXELS, apart / SCORE)
        if distance.size and distance.min() <= 1:
            nearest = int(distance.argmin())
            found.pixels = max(found.pixels, float(pixels[nearest]))
            found.score = max(found.score, float(apart[nearest]))
        elif score > edge:
            found.missing += 1
