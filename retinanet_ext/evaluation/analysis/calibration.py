"""Whether a score is the probability to be right: reliability over ten bins, ECE and MCE.

The focal loss alone makes scores too low: what it is trained on counts easy examples less.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from .assignment import Assignment

__all__ = ["NUM_BINS", "Calibration", "calibrate", "calibrate_classes"]

NUM_BINS = 10


@dataclass(frozen=True)
class Calibration:
    """Detections that count, by their score, in bins of equal width from 0 to 1.

    Attributes:
        count: (NUM_BINS,), detections of a bin. The last one holds a score of 1, too.
        score: (NUM_BINS,), their mean score; NaN for an empty bin.
        precision: (NUM_BINS,), the share of them that is right; NaN for an empty bin.
    """

    count: np.ndarray
    score: np.ndarray
    precision: np.ndarray

    @property
    def ece(self) -> float:
        """Expected calibration error: the mean gap over all detections, in [0, 1]; NaN of none."""
        total = self.count.sum()
        return float(np.nansum(self.count * self._gap) / total) if total else float("nan")

    @property
    def mce(self) -> float:
        """The largest gap of a bin, in [0, 1]; NaN of no detections."""
        return float(np.nanmax(self._gap)) if self.count.any() else float("nan")

    @property
    def _gap(self) -> np.ndarray:
        return np.abs(self.precision - self.score)


def calibrate(assignment: Assignment) -> Calibration:
    """The calibration of all classes together; what matches a crowd does not count."""
    return _calibrate(assignment, assignment.by_class)


def calibrate_classes(assignment: Assignment) -> list[Calibration]:
    """(K,), the calibration of each class."""
    rows, size = assignment.by_class, assignment.tables.num_classes
    ends = np.searchsorted(assignment.tables.detections.label[rows], np.arange(size + 1))
    return [_calibrate(assignment, rows[a:b]) for a, b in itertools.pairwise(ends)]


def _calibrate(assignment: Assignment, rows: np.ndarray) -> Calibration:
    score = assignment.tables.detections.score[rows]
    edges = np.arange(1, NUM_BINS) / NUM_BINS
    bins = np.searchsorted(edges, score, side="right")
    count = np.bincount(bins, minlength=NUM_BINS)
    some = np.where(count > 0, count, np.nan)
    scores = np.bincount(bins, score, NUM_BINS) / some
    return Calibration(count, scores, np.bincount(bins, assignment.right[rows], NUM_BINS) / some)
