"""What AP50 loses to each kind of error, as TIDE defines it.

Bolya et al., *TIDE: A General Toolbox for Identifying Object Detection Errors*, ECCV 2020,
https://arxiv.org/abs/2008.08115. The order of the questions and the repairs are those of tidecv.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from .assignment import Assignment
from .curves import average_precision
from .tables import FAINT

__all__ = ["KINDS", "ErrorSplit", "split_errors"]

KINDS = ("Cls", "Loc", "Both", "Dupe", "Bkg", "Miss")
CLS, LOC, BOTH, DUPE, BKG = range(5)
NO_ERROR = -1


@dataclass(frozen=True)
class ErrorSplit:
    """What would be gained if one kind of error was repaired, each by itself.

    The gains do not add up to 100 - AP, since errors hide each other. What matches a crowd is in
    no count, but a repair may make it right, as in tidecv.

    Attributes:
        ap: the mean over classes at the assignment's IoU, in points of 100. Unlike COCO's, a class
            without objects counts as 0 if it is detected.
        gain: of each of KINDS, and of "FP" (no false positive before a true one) and "FN" (nothing
            missed, with the precision as it is), in points of 100, at least 0.
        count: how many there are of each of KINDS. "Miss" are objects that no other repair finds.
        kind: (D,), index into KINDS of each wrong detection; -1 for all others.
    """

    ap: float
    gain: Mapping[str, float]
    count: Mapping[str, int]
    kind: np.ndarray


def split_errors(assignment: Assignment) -> ErrorSplit:
    """Put each wrong detection and each missed object down to one kind of error.

    Of a wrong detection, with t the assignment's IoU: ``Loc`` if it overlaps an object of its class
    by 0.1 to t; else ``Cls`` if it overlaps one of another class by t; else ``Dupe`` if it overlaps
    one of its class by t that has been found; else ``Bkg`` if it overlaps nothing by more than 0.1;
    else ``Both``.
    """
    tables = assignment.tables
    detections, objects = tables.detections, tables.objects
    kind, target = _kinds(assignment)
    base_rows = assignment.right | assignment.wrong

    # The surest Loc or Cls of an object that is missed would find it; the others go.
    aimed = np.flatnonzero((kind == CLS) | (kind == LOC))
    aimed = aimed[assignment.missed[target[aimed]]]
    repaired, first = np.unique(target[aimed], return_index=True)  # the lowest index is the surest
    finder = aimed[first]
    lost = assignment.missed.copy()
    lost[repaired] = False

    def mean_ap(
        rows: np.ndarray, right: np.ndarray, label: np.ndarray, num_objects: np.ndarray
    ) -> float:
        order = rows[np.lexsort((-detections.score[rows], label[rows]))]
        ap = average_precision(label[order], right[order], num_objects)
        there = (num_objects > 0) | (np.bincount(label[rows], minlength=len(num_objects)) > 0)
        return float(np.nan_to_num(ap)[there].mean() * 100) if there.any() else 0.0

    objects_of = tables.num_objects
    base = mean_ap(np.flatnonzero(base_rows), assignment.right, detections.label, objects_of)
    fixed: dict[str, float] = {}
    for number, name in enumerate(KINDS[:-1]):
        rows, right, label = base_rows & (kind != number), assignment.right, detections.label
        winners = kind[finder] == number
        if winners.any():
            right, label = right.copy(), label.copy()
            right[finder[winners]] = rows[finder[winners]] = True
            label[finder[winners]] = objects.label[repaired[winners]]
        fixed[name] = mean_ap(np.flatnonzero(rows), right, label, objects_of)

    def without(gone: np.ndarray) -> float:
        fewer = objects_of - np.bincount(objects.label[gone], minlength=len(objects_of))
        return mean_ap(np.flatnonzero(base_rows), assignment.right, detections.label, fewer)

    fixed["Miss"] = without(lost)
    fixed["FP"] = _ap_without_false(assignment)
    fixed["FN"] = without(assignment.missed)
    shown = np.where(assignment.wrong, kind, NO_ERROR)
    count = {name: int((shown == i).sum()) for i, name in enumerate(KINDS[:-1])}
    return ErrorSplit(
        ap=base,
        gain={name: max(value - base, 0.0) for name, value in fixed.items()},
        count={**count, "Miss": int(lost.sum())},
        kind=shown,
    )


def _ap_without_false(assignment: Assignment) -> float:
    """AP in points where every right detection comes before every wrong one."""
    tables = assignment.tables
    rows = np.flatnonzero(assignment.right)
    label = np.sort(tables.detections.label[rows])
    ap = average_precision(label, np.ones(len(label), bool), tables.num_objects)
    rows = np.flatnonzero(assignment.right | assignment.wrong)
    found = np.bincount(tables.detections.label[rows], minlength=tables.num_classes)
    there = (tables.num_objects > 0) | (found > 0)
    return float(np.nan_to_num(ap)[there].mean() * 100) if there.any() else 0.0


def _kinds(assignment: Assignment) -> tuple[np.ndarray, np.ndarray]:
    """The kind of each detection that finds nothing, and the object that Loc and Cls are about."""
    tables, pairs = assignment.tables, assignment.tables.overlaps
    real = ~tables.objects.crowd[pairs.object]
    same = tables.detections.label[pairs.detection] == tables.objects.label[pairs.object]
    found = assignment.detection_of[pairs.object] >= 0
    iou = min(assignment.iou, 1 - 1e-10)
    own_iou, own = _largest(assignment, real & same)
    other_iou, other = _largest(assignment, real & ~same)
    twice_iou, _ = _largest(assignment, real & same & found)
    any_iou = np.maximum(own_iou, other_iou)
    cases = [
        (own_iou >= FAINT) & (own_iou <= assignment.iou),
        other_iou >= iou,
        twice_iou >= iou,
        any_iou <= FAINT,
    ]
    kind = np.select(cases, [LOC, CLS, DUPE, BKG], BOTH)
    kind[~(assignment.wrong | assignment.ignored)] = NO_ERROR
    return kind, np.where(kind == LOC, own, other)


def _largest(assignment: Assignment, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(D,), the largest IoU of each detection among the pairs, 0 without, and its object."""
    pairs, size = assignment.tables.overlaps, len(assignment.counted)
    rows = np.flatnonzero(wanted)
    rows = rows[np.lexsort((-pairs.iou[rows], pairs.detection[rows]))]
    detection, first = np.unique(pairs.detection[rows], return_index=True)
    iou, target = np.zeros(size), np.full(size, -1)
    iou[detection] = pairs.iou[rows][first]
    target[detection] = pairs.object[rows][first]
    return iou, target
