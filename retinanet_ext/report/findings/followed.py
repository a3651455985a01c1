"""At which step of the detector the boxes of a missed object end.

An object has boxes: what the anchors at it became. Each step of the detector removes some of them,
and the reason is the step that removes the last one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
from pycocotools.mask import iou as box_iou

from ...structures import DecodedPicture, DecoderSettings
from .reasons import (
    ABOVE_CAP,
    BELOW_THRESHOLD,
    CROWDED,
    LOOSE,
    NO_ANCHOR,
    SUPPRESSED,
    TOPK,
    UNKNOWN,
    UNSEEN,
)

__all__ = ["UNCOUNTED", "FoundHere", "follow_objects"]

NEAREST = 9
"""Anchors that an object's class is looked for at, where training knows no IoU that matches."""
UNCOUNTED = -2
SAME_BOX = 0.95
"""From this IoU on, a box that NMS kept and a detection of its class are one and the same."""


class FoundHere:
    """The detections of a picture at the report's thresholds, and which of them are right."""

    def __init__(self, boxes: np.ndarray, labels: np.ndarray, finds: np.ndarray) -> None:
        """
        Args:
            boxes: (D, 4) XYWH.
            labels: (D,).
            finds: (D,), index of the object that each is the true positive of; -1 of none, and
                UNCOUNTED for what is beyond the detections that count.
        """
        self.boxes, self.labels, self.finds = boxes, labels, finds

    def belongs_to(self, box: np.ndarray, label: int) -> int:
        """The object that a box (4,) of NMS is the true positive of; else as ``finds``."""
        rows = np.flatnonzero(self.labels == label)
        if not len(rows):
            return -1
        iou = _iou(box[None], self.boxes[rows])[0]
        best = int(iou.argmax())
        return int(self.finds[rows[best]]) if iou[best] >= SAME_BOX else -1


def follow_objects(
    raw: DecodedPicture,
    asked: Sequence[int],
    settings: DecoderSettings,
    boxes: np.ndarray,
    labels: np.ndarray,
    missed: np.ndarray,
    limits: np.ndarray,
    iou: float,
    found: FoundHere,
) -> Iterator[tuple[int, str]]:
    """Each missed object of a picture with the reason for it.

    Args:
        raw: what the detector computed.
        asked: (C,), the class indices of ``raw``.
        settings: of the detector.
        boxes: (N, 4) XYWH float64, the picture's objects that are to be found.
        labels: (N,), their classes.
        missed: (N,) bool, the ones to be explained.
        limits: (K,), score thresholds of the report.
        iou: with which a box finds an object.
        found: its detections.

    Yields:
        Index of a missed object, and its reason.
    """
    for row, label in enumerate(asked):
        of_class = np.flatnonzero(labels == label)
        wanted = of_class[missed[of_class]]
        if not len(wanted):
            continue
        # One object at a time: all pairs of anchors and objects would fill the memory.
        largest = np.zeros(len(raw.anchors))  # IoU of each box with an object of the class
        for n in of_class.tolist():
            np.maximum(largest, _iou(raw.boxes[row], boxes[n][None])[:, 0], out=largest)
        least = min(iou, 1 - 1e-10)
        for n in wanted.tolist():
            near = _near(_iou(raw.anchors, boxes[n][None])[:, 0], settings.matching_iou)
            if not near.any():
                yield n, NO_ANCHOR
                continue
            overlap = _iou(raw.boxes[row], boxes[n][None])[:, 0]
            fits = overlap >= least
            # A box that fits a neighbour, and this object less or not at all, is the neighbour's.
            own = (fits & (overlap >= largest)) | (near & (largest < least))
            end = partial(_last_step, raw, row, label, settings, fits, limits, found, n)
            reason = end(own)
            if reason == UNSEEN and end(fits) == CROWDED:
                reason = CROWDED
            yield n, reason


def _near(iou: np.ndarray, matching_iou: float | None) -> np.ndarray:
    """(R,) bool, the anchors at an object."""
    if matching_iou is not None:
        return iou >= matching_iou
    near = np.zeros(len(iou), bool)
    near[np.argsort(-iou, kind="stable")[:NEAREST]] = True
    return near


def _last_step(
    raw: DecodedPicture,
    row: int,
    label: int,
    settings: DecoderSettings,
    fits: np.ndarray,
    limits: np.ndarray,
    found: FoundHere,
    itself: int,
    mine: np.ndarray,
) -> str:
    """The step that removes the last of an object's boxes ``mine`` (R,)."""
    steps = (
        (UNSEEN, raw.probs[row] > settings.score_thresh),
        (BELOW_THRESHOLD, raw.scores[row] >= limits[label]),
        (TOPK, raw.is_candidate[row]),
        (LOOSE, fits),
    )
    for reason, passes in steps:
        mine = mine & passes
        if not mine.any():
            return reason
    kept = raw.kept[row]
    # Soft-NMS removes no box, but lowers its score.
    left = mine & (kept >= 0)
    left[left] = raw.kept_scores[kept[left]] >= limits[label]
    if not left.any():
        best = np.flatnonzero(mine)[raw.scores[row][mine].argmax()]
        owner = _owner_of_suppressor(raw, row, label, settings, int(best), found)
        return CROWDED if owner >= 0 and owner != itself else SUPPRESSED
    if (kept[left] >= settings.max_detections).all():
        return ABOVE_CAP
    first = kept[left].min()
    owner = found.belongs_to(raw.kept_boxes[first], label)
    if owner == UNCOUNTED:
        return ABOVE_CAP
    return CROWDED if owner >= 0 and owner != itself else UNKNOWN


def _owner_of_suppressor(
    raw: DecodedPicture,
    row: int,
    label: int,
    settings: DecoderSettings,
    box: int,
    found: FoundHere,
) -> int:
    """The object that the box is the true positive of for which NMS removed another; or -1."""
    if settings.nms_kind == "soft":  # scores have been lowered: only their order tells
        rivals = raw.kept_labels == label
        if raw.kept[row, box] >= 0:
            rivals[raw.kept[row, box] :] = False
    else:
        rivals = raw.kept_scores >= raw.scores[row, box]
        if settings.nms_kind == "per_class":
            rivals &= raw.kept_labels == label
    places = np.flatnonzero(rivals)
    if not len(places):
        return -1
    best = places[_iou(raw.boxes[row, box][None], raw.kept_boxes[places])[0].argmax()]
    return found.belongs_to(raw.kept_boxes[best], int(raw.kept_labels[best]))


def _iou(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """(A, B) IoU of XYWH boxes, pycocotools' to the last bit."""
    if not len(boxes) or not len(others):
        return np.zeros((len(boxes), len(others)))
    crowd = np.zeros(len(others), np.uint8).tolist()
    return np.asarray(box_iou(np.ascontiguousarray(boxes), np.ascontiguousarray(others), crowd))
