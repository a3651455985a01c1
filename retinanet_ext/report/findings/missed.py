"""Why each missed object is missed: by the detector's own steps, or by what its detections tell."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from ...errors import InputError, UserError, count
from ...evaluation.analysis.assignment import Assignment
from ...evaluation.analysis.class_confusion import confuse_classes
from ...structures import DecodedPicture, DecoderSettings
from .followed import UNCOUNTED, FoundHere, follow_objects
from .reasons import (
    ABOVE_CAP,
    BELOW_THRESHOLD,
    CROWDED,
    LOOSE,
    UNKNOWN,
    UNSEEN,
    WRONG_CLASS,
    MissedObject,
    Misses,
)

__all__ = ["Look", "explain_misses"]


class Look(Protocol):
    """What a detector computes of the pictures of a data set, such as ``inference.RawHeads``."""

    settings: DecoderSettings

    def __call__(self, image_id: Any, labels: Sequence[int]) -> DecodedPicture:
        """Of one picture and some classes of the data set.

        Raises:
            UserError: the picture cannot be read.
        """


def explain_misses(
    assignment: Assignment,
    thresholds: float | Sequence[float] | np.ndarray,
    look: Look | None = None,
) -> Misses:
    """Find the reason for each object that no detection finds from its threshold on.

    What the confusion matrix at these thresholds gives to another class is ``wrong_class``, so that
    both show one number. Each other object is followed through the steps of the detector, or where
    there is only the file of detections, judged by what is left of it there. Crowds are not missed.

    Args:
        assignment: of the detections.
        thresholds: of the score: one, or (K,) for the classes.
        look: the detector that made the detections; None: only these are known. It is asked for
            the pictures with misses, one after the other.
    """
    tables = assignment.tables
    objects, detections = tables.objects, tables.detections
    limits = np.broadcast_to(np.asarray(thresholds, np.float64), (tables.num_classes,))
    if np.isnan(limits).any():
        raise InputError("a score threshold is NaN; it must be a number between 0 and 1")
    confusion = confuse_classes(assignment, limits)
    own = confusion.taken_for == objects.label
    missed = ~objects.crowd & ~own
    reasons = np.full(len(missed), "", dtype=object)
    reasons[missed & (confusion.taken_for < tables.num_classes)] = WRONG_CLASS
    open_ones = missed & (reasons == "")
    shown = detections.score >= limits[detections.label]
    if look is None:
        _by_detections(assignment, shown, open_ones, reasons)
        notes: list[str] = []
    else:
        notes = _by_steps(assignment, limits, shown, open_ones, reasons, look)
    return Misses(
        objects=[
            MissedObject(
                image_id=tables.image_ids[objects.image[n]],
                box=(*objects.box[n].tolist(),),
                name=tables.names[objects.label[n]],
                reason=reasons[n],
                annotation=int(objects.annotation[n]),
            )
            for n in np.flatnonzero(missed).tolist()
        ],
        iou=assignment.iou,
        max_dets=assignment.max_dets,
        settings=None if look is None else look.settings,
        notes=notes,
    )


def _by_detections(
    assignment: Assignment, shown: np.ndarray, missed: np.ndarray, reasons: np.ndarray
) -> None:
    """Write the reasons (N,) that the detections at the ``missed`` objects give."""
    tables, pairs = assignment.tables, assignment.tables.overlaps
    same = tables.detections.label[pairs.detection] == tables.objects.label[pairs.object]
    fits = pairs.iou >= min(assignment.iou, 1 - 1e-10)
    # A detection that is right elsewhere, and only touches this object, is not about it.
    elsewhere = assignment.right[pairs.detection]
    elsewhere &= assignment.object_of[pairs.detection] != pairs.object
    about = same & missed[pairs.object] & (fits | ~elsewhere)
    counted = assignment.counted[pairs.detection]
    visible = shown[pairs.detection]

    def has(wanted: np.ndarray) -> np.ndarray:
        there = np.zeros(len(missed), bool)
        there[pairs.object[about & wanted]] = True
        return there

    cases = {
        CROWDED: has(visible & fits & counted),
        ABOVE_CAP: has(visible & fits),
        LOOSE: has(visible),
        BELOW_THRESHOLD: has(fits),
    }
    found = np.select(list(cases.values()), list(cases), UNSEEN)
    reasons[missed] = found[missed]


def _by_steps(
    assignment: Assignment,
    limits: np.ndarray,
    shown: np.ndarray,
    missed: np.ndarray,
    reasons: np.ndarray,
    look: Look,
) -> list[str]:
    """Write the reasons (N,) that the detector's steps give; returns what is to be noted."""
    tables = assignment.tables
    objects, detections = tables.objects, tables.detections
    unread: list[int] = []
    images = np.arange(len(tables.image_ids) + 1)
    starts = np.searchsorted(objects.image, images)
    of_detections = np.searchsorted(detections.image, images)
    for image in np.unique(objects.image[missed]).tolist():
        rows = np.arange(starts[image], starts[image + 1])
        rows = rows[~objects.crowd[rows]]
        mine = rows[missed[rows]]
        asked = np.unique(objects.label[mine]).tolist()
        try:
            raw = look(tables.image_ids[image], asked)
        except (UserError, OSError):
            reasons[mine] = UNKNOWN
            unread.append(len(mine))
            continue
        here = np.arange(of_detections[image], of_detections[image + 1])
        here = here[shown[here]]
        place = np.full(starts[image + 1] - starts[image], -1)
        place[rows - starts[image]] = np.arange(len(rows))
        finds = np.where(assignment.counted[here], -1, UNCOUNTED)
        right = assignment.right[here]
        finds[right] = place[assignment.object_of[here[right]] - starts[image]]
        found = FoundHere(detections.box[here], detections.label[here], finds)
        for n, reason in follow_objects(
            raw,
            asked,
            look.settings,
            objects.box[rows],
            objects.label[rows],
            missed[rows],
            limits,
            assignment.iou,
            found,
        ):
            reasons[rows[n]] = reason
    return _notes(look.settings, unread, int((reasons == UNKNOWN).sum()))


def _notes(settings: DecoderSettings, unread: Sequence[int], unknown: int) -> list[str]:
    notes = []
    if unread:
        notes.append(
            f"{count(len(unread), 'picture')} could not be read, so that nothing is known of "
            f"{count(sum(unread), 'missed object')} there."
        )
    if unknown > sum(unread):
        notes.append(
            f"The model, run again, finds {count(unknown - sum(unread), 'object')} that the file "
            "of detections misses: that was made with other weights or settings, or on another "
            "machine."
        )
    if settings.matching_iou is None:
        notes.append(
            "Training gives anchors to objects by another rule than an IoU threshold, so that an "
            "object that no anchor fits cannot be told from one that is not seen."
        )
    if settings.nms_kind == "soft":
        notes.append("Soft-NMS lowers scores: what it lowers below the threshold is suppressed.")
    return notes
