"""The pictures with the most mistakes, and detections that look like objects nobody labelled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...evaluation.analysis.assignment import Assignment
from ...evaluation.analysis.error_split import KINDS, ErrorSplit
from .reasons import Misses

__all__ = [
    "SURE",
    "PictureBox",
    "PossibleLabel",
    "WorstPicture",
    "possible_missing_labels",
    "worst_pictures",
]

SURE = 0.7
"""A detection on nothing with a higher score than this, and its class's threshold, may be right."""


@dataclass(frozen=True)
class PictureBox:
    """A box to be drawn.

    Attributes:
        kind: "TP", "FP" or "FN".
        name: of the class: the detected one, or of a missed object its own.
        box: XYWH in pixels of the picture.
        score: in [0, 1]; None for "FN".
        why: what kind of error an "FP" is, one of the error split's KINDS; the reason for an "FN",
            one of REASONS; "" where it was not asked for.
    """

    kind: str
    name: str
    box: tuple[float, float, float, float]
    score: float | None
    why: str = ""

    def to_json(self) -> dict[str, Any]:
        """For ``report.json``."""
        kind = {"TP": "found", "FP": "false", "FN": "missed"}[self.kind]
        box = {"kind": kind, "class": self.name, "score": self.score, "box": list(self.box)}
        return {**box, "why": self.why} if self.why else box


@dataclass(frozen=True)
class WorstPicture:
    """A picture with its mistakes at the thresholds.

    Attributes:
        image_id: of the annotations.
        num_false, num_missed: false positives and false negatives.
        boxes: false negatives, false positives from the surest, then true positives.
    """

    image_id: Any
    num_false: int
    num_missed: int
    boxes: Sequence[PictureBox]

    @property
    def cost(self) -> int:
        """Mistakes in the picture."""
        return self.num_false + self.num_missed

    def to_json(self) -> dict[str, Any]:
        """For ``report.json``."""
        return {
            "image_id": self.image_id,
            "false": self.num_false,
            "missed": self.num_missed,
            "boxes": [box.to_json() for box in self.boxes],
        }


@dataclass(frozen=True)
class PossibleLabel:
    """A sure detection where the annotations have nothing.

    Attributes:
        image_id: of the annotations.
        name: of its class.
        box: XYWH in pixels of the picture.
        score: in [0, 1].
    """

    image_id: Any
    name: str
    box: tuple[float, float, float, float]
    score: float


def worst_pictures(
    assignment: Assignment,
    thresholds: float | Sequence[float] | np.ndarray,
    errors: ErrorSplit | None = None,
    misses: Misses | None = None,
    most: int = 24,
) -> list[WorstPicture]:
    """The pictures with the most false positives and false negatives, worst first.

    Of equally many, the one whose mistakes cost AP more goes first: one of a kind costs what AP
    loses to the kind, over how many there are of it. Pictures without a mistake are left out.

    Args:
        assignment: of the detections.
        thresholds: of the score: one, or (K,) for the classes.
        errors: of the same assignment, for the kinds of false positives and what they cost.
        misses: at the same thresholds, for the reasons of false negatives.
        most: pictures at most.
    """
    tables = assignment.tables
    objects, detections = tables.objects, tables.detections
    limits = np.broadcast_to(np.asarray(thresholds, np.float64), (tables.num_classes,))
    shown = detections.score >= limits[detections.label]
    false, right = assignment.wrong & shown, assignment.right & shown
    missed = ~objects.crowd
    missed[assignment.object_of[right]] = False  # what it finds
    size = len(tables.image_ids)
    num_false = np.bincount(detections.image[false], minlength=size)
    num_missed = np.bincount(objects.image[missed], minlength=size)
    order = np.lexsort(
        (-_ap_lost(assignment, false, missed, errors), -(num_false + num_missed))
    )  # stable
    reasons = {} if misses is None else {x.annotation: x.reason for x in misses.objects}
    worst = []
    for image in order[:most].tolist():
        if num_false[image] + num_missed[image] == 0:
            break
        boxes = [
            PictureBox(
                "FN",
                tables.names[objects.label[n]],
                _box(objects.box[n]),
                None,
                reasons.get(int(objects.annotation[n]), ""),
            )
            for n in np.flatnonzero(missed & (objects.image == image)).tolist()
        ]
        for kind, rows in (("FP", false), ("TP", right)):
            for d in np.flatnonzero(rows & (detections.image == image)).tolist():
                is_known = errors is not None and kind == "FP"
                why = KINDS[errors.kind[d]] if errors is not None and is_known else ""
                name, score = tables.names[detections.label[d]], float(detections.score[d])
                boxes.append(PictureBox(kind, name, _box(detections.box[d]), score, why))
        counts = int(num_false[image]), int(num_missed[image])
        worst.append(WorstPicture(tables.image_ids[image], *counts, boxes))
    return worst


def _ap_lost(
    assignment: Assignment, false: np.ndarray, missed: np.ndarray, errors: ErrorSplit | None
) -> np.ndarray:
    """(I,), what the mistakes of each picture cost AP, in points; 0 if it is not known."""
    tables = assignment.tables
    size = len(tables.image_ids)
    if errors is None:
        return np.zeros(size)
    each = np.array([errors.gain[kind] / max(errors.count[kind], 1) for kind in KINDS])
    of_false = each[errors.kind[false]]
    lost = np.bincount(tables.detections.image[false], of_false, size)
    return lost + np.bincount(tables.objects.image[missed], minlength=size) * each[-1]


def possible_missing_labels(
    assignment: Assignment,
    thresholds: float | Sequence[float] | np.ndarray,
    most: int | None = 24,
) -> list[PossibleLabel]:
    """Detections that may be right, and the annotations incomplete; the surest first.

    False positives with a score above SURE and above the threshold of their class, that overlap no
    object and no crowd by an IoU of 0.1.

    Args:
        assignment: of the detections.
        thresholds: of the score: one, or (K,) for the classes.
        most: at most so many; None for all.
    """
    tables = assignment.tables
    detections = tables.detections
    limits = np.broadcast_to(np.asarray(thresholds, np.float64), (tables.num_classes,))
    wanted = assignment.wrong & (detections.score > np.maximum(limits, SURE)[detections.label])
    wanted[tables.overlaps.detection] = False  # these overlap something
    rows = np.flatnonzero(wanted)
    rows = rows[np.argsort(-detections.score[rows], kind="stable")][:most]
    return [
        PossibleLabel(
            tables.image_ids[detections.image[d]],
            tables.names[detections.label[d]],
            _box(detections.box[d]),
            float(detections.score[d]),
        )
        for d in rows.tolist()
    ]


def _box(row: np.ndarray) -> tuple[float, float, float, float]:
    x, y, width, height = (float(value) for value in row)
    return x, y, width, height
