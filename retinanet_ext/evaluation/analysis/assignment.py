"""COCO's own assignment of detections to objects at one IoU, done once for every analysis."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ...errors import InputError
from .tables import FAINT, Tables

__all__ = ["Assignment", "assign"]


@dataclass(frozen=True)
class Assignment:
    """Which detection found which object, as ``COCOeval.evaluateImg`` has it for all sizes.

    Attributes:
        tables: what was assigned.
        iou: the least overlap of a detection that finds an object.
        max_dets: detections that count, of each image and class.
        counted: (D,), bool; the detection is one of these.
        object_of: (D,), index of the object or crowd that the detection matches, or -1.
        detection_of: (N,), index of the detection that finds the object, or -1; a crowd has none.
    """

    tables: Tables
    iou: float
    max_dets: int
    counted: np.ndarray
    object_of: np.ndarray
    detection_of: np.ndarray

    @cached_property
    def ignored(self) -> np.ndarray:
        """(D,), bool; the detection matches a crowd: neither right nor wrong."""
        return np.append(self.tables.objects.crowd, False)[self.object_of]  # -1 is the last

    @cached_property
    def right(self) -> np.ndarray:
        """(D,), bool; the detection finds an object: a true positive."""
        return (self.object_of >= 0) & ~self.ignored

    @cached_property
    def wrong(self) -> np.ndarray:
        """(D,), bool; the detection counts and finds nothing: a false positive."""
        return self.counted & (self.object_of < 0)

    @cached_property
    def missed(self) -> np.ndarray:
        """(N,), bool; no detection finds the object: a false negative."""
        return (self.detection_of < 0) & ~self.tables.objects.crowd

    @cached_property
    def by_class(self) -> np.ndarray:
        """Indices of the right and wrong detections: by class, then in the order of AP."""
        detections = self.tables.detections
        rows = np.flatnonzero(self.right | self.wrong)
        return rows[np.lexsort((-detections.score[rows], detections.label[rows]))]


def assign(tables: Tables, iou: float = 0.5, max_dets: int = 100) -> Assignment:
    """Give each detection, the surest first, the object of its class that it overlaps most.

    An object is found once. A detection that finds none may match a crowd, in which any number
    of detections fit. Where a detection overlaps several equally, the last of them is taken.

    Args:
        tables: objects and detections.
        iou: in [0.1, 1].
        max_dets: at least 1; TEST.DETECTIONS_PER_IMAGE of an evaluation.

    Raises:
        ValueError: ``iou`` or ``max_dets`` outside of these.
    """
    if not FAINT <= iou <= 1:
        raise InputError(f"the IoU of an assignment is {iou}; it must be between {FAINT} and 1")
    if max_dets < 1:
        raise InputError(f"max_dets is {max_dets}; set it to 1 or more, COCO's value is 100")
    objects, detections, pairs = tables.objects, tables.detections, tables.overlaps
    counted = _rank_of_class(tables) < max_dets
    same = detections.label[pairs.detection] == objects.label[pairs.object]
    # As in pycocotools, which lets an IoU of 1 pass in spite of rounding.
    kept = same & counted[pairs.detection] & (pairs.iou >= min(iou, 1 - 1e-10))
    object_of = np.full(len(detections.label), -1)
    detection_of = np.full(len(objects.label), -1)
    crowd = objects.crowd.tolist()
    taken = [False] * len(crowd)
    best: dict[int, tuple[bool, float, int]] = {}
    last = -1
    found: list[tuple[int, int]] = []
    for d, n, overlap in zip(
        pairs.detection[kept].tolist(),
        pairs.object[kept].tolist(),
        pairs.iou[kept].tolist(),
        strict=True,
    ):
        if d != last:
            _take(best, last, crowd, taken, found)
            last = d
        if taken[n]:
            continue
        rank = (not crowd[n], overlap, n)  # an object before a crowd, of equals the last
        if d not in best or rank > best[d]:
            best[d] = rank
    _take(best, last, crowd, taken, found)
    if found:
        rows, columns = np.array(found).T
        object_of[rows] = columns
        real = ~objects.crowd[columns]
        detection_of[columns[real]] = rows[real]
    return Assignment(tables, iou, max_dets, counted, object_of, detection_of)


def _take(
    best: dict[int, tuple[bool, float, int]],
    detection: int,
    crowd: list[bool],
    taken: list[bool],
    found: list[tuple[int, int]],
) -> None:
    """Note what the detection has found, before the next one looks."""
    if detection in best:
        n = best.pop(detection)[2]
        taken[n] = not crowd[n]
        found.append((detection, n))


def _rank_of_class(tables: Tables) -> np.ndarray:
    """(D,), how many surer detections of its class each one has in its image."""
    detections = tables.detections
    key = detections.image * max(tables.num_classes, 1) + detections.label
    order = np.argsort(key, kind="stable")
    ordered = key[order]
    rank = np.empty(len(key), np.int64)
    rank[order] = np.arange(len(key)) - np.searchsorted(ordered, ordered)
    return rank
