"""One row per class: AP, and what its best score threshold gives."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..backend import BoxAccuracy
from .assignment import Assignment
from .curves import best_thresholds, class_curves, pooled_curve

__all__ = ["FEW", "ClassRow", "class_rows"]

FEW = 10
"""With fewer objects than this, a best threshold is mostly chance."""


@dataclass(frozen=True)
class ClassRow:
    """A class in numbers; NaN is what has no value.

    Attributes:
        name: of the class.
        AP, AP50, AP75: by the evaluator, in points of 100.
        AR: the evaluator's recall, the mean over its IoUs, in points of 100.
        num_objects: that are to be found.
        num_detections: of this class that count, whatever their score.
        threshold: the score at which F1 is highest; of the pooled detections where that is none.
        precision, recall, f1: of the detections from the threshold on, in [0, 1].
    """

    name: str
    AP: float
    AP50: float
    AP75: float
    AR: float
    num_objects: int
    num_detections: int
    threshold: float
    precision: float
    recall: float
    f1: float

    @property
    def uncertain(self) -> bool:
        """Whether the threshold and what it gives rest on fewer objects than FEW."""
        return self.num_objects < FEW


def class_rows(
    assignment: Assignment,
    accuracy: BoxAccuracy,
    labels: Sequence[int] | np.ndarray | None = None,
    thresholds: Sequence[float] | None = None,
) -> list[ClassRow]:
    """The rows of all classes, in the order of their category ids.

    Args:
        assignment: of the detections.
        accuracy: of the same detections, by the evaluator; with ``max_dets`` of the assignment
            among its limits.
        labels: indices of the classes that the accuracy is of; by default all. The others have no
            AP.
        thresholds: (K,), of the score; by default, the best ones.
    """
    curves = class_curves(assignment)
    if thresholds is None:
        thresholds = best_thresholds(curves, pooled_curve(assignment)).tolist()
    limit = accuracy.max_dets.index(assignment.max_dets)
    ap = {name: np.full(len(curves), math.nan) for name in IOUS}
    for name, iou in IOUS.items():
        ap[name][slice(None) if labels is None else labels] = _ap(accuracy, limit, iou)
    ap["AR"] = np.full(len(curves), math.nan)
    ap["AR"][slice(None) if labels is None else labels] = _ar(accuracy, limit)
    rows = []
    for k, (name, curve) in enumerate(zip(assignment.tables.names, curves, strict=True)):
        precision, recall, f1 = curve.at(thresholds[k])
        num_detections = int(curve.right[-1] + curve.wrong[-1]) if len(curve.score) else 0
        rows.append(
            ClassRow(
                name=name,
                **{key: float(values[k]) for key, values in ap.items()},
                num_objects=curve.num_objects,
                num_detections=num_detections,
                threshold=float(thresholds[k]),
                precision=precision,
                recall=recall,
                f1=f1,
            )
        )
    return rows


IOUS = {"AP": 0.0, "AP50": 0.5, "AP75": 0.75}


def _ap(accuracy: BoxAccuracy, limit: int, iou: float) -> np.ndarray:
    """(K,), in points; at one IoU, or the mean over all of them for 0."""
    precision = accuracy.precision[:, :, :, 0, limit]
    if iou:
        precision = precision[np.isclose(accuracy.iou_thresholds, iou)]
    known = precision[0, 0] > -1  # all or none of a class
    return np.where(known, precision.mean(axis=(0, 1)) * 100, math.nan)


def _ar(accuracy: BoxAccuracy, limit: int) -> np.ndarray:
    """(K,), in points."""
    recall = accuracy.recall[:, :, 0, limit]
    return np.where(recall[0] > -1, recall.mean(axis=0) * 100, math.nan)
