"""All findings about one evaluation, as the part of ``report.json`` that they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ...evaluation.analysis.assignment import Assignment
from ...evaluation.analysis.error_split import ErrorSplit
from .large import count_large_boxes
from .missed import Look, explain_misses
from .worst import PossibleLabel, possible_missing_labels, worst_pictures

__all__ = ["findings_content"]

MOST_OBJECTS = 1000
"""Missed objects that are listed one by one; all are counted."""


def findings_content(
    assignment: Assignment,
    thresholds: float | Sequence[float] | np.ndarray,
    errors: ErrorSplit | None = None,
    look: Look | None = None,
    why_no_look: str = "",
    sizes: Mapping[Any, tuple[float, float]] | None = None,
    most: int = 24,
) -> dict[str, Any]:
    """``missed``, ``worst``, ``missing_labels``, ``possible_labels`` and ``large_boxes``.

    With them in the report, :func:`.what_to_try` has what it wants to know.

    Args:
        assignment: of the detections.
        thresholds: of the score: one, or (K,) for the classes.
        errors: of the assignment.
        look: the detector, see :func:`.explain_misses`; None: only its detections are known.
        why_no_look: a sentence for the page where ``look`` is None though there is a model.
        sizes: image id -> height and width in pixels.
        most: pictures of each gallery.
    """
    misses = explain_misses(assignment, thresholds, look)
    missed = misses.to_json(MOST_OBJECTS)
    if why_no_look:
        missed["notes"].insert(0, why_no_look)
    labels = possible_missing_labels(assignment, thresholds, None)
    worst = worst_pictures(assignment, thresholds, errors, misses, most)
    return {
        "missed": missed,
        "worst": [picture.to_json() for picture in worst],
        "missing_labels": _by_picture(labels, assignment)[:most],
        "possible_labels": {"count": len(labels)},
        "large_boxes": count_large_boxes(assignment, sizes or {}),
    }


def _by_picture(labels: Sequence[PossibleLabel], assignment: Assignment) -> list[dict[str, Any]]:
    """Pictures with possible labels, that of the surest first, and what is annotated in them."""
    tables = assignment.tables
    places = {image_id: i for i, image_id in enumerate(tables.image_ids)}
    rows: dict[Any, list[dict[str, Any]]] = {}
    for label in labels:
        box = {"kind": "false", "class": label.name, "score": label.score, "box": list(label.box)}
        rows.setdefault(label.image_id, []).append(box)
    objects = tables.objects
    starts = np.searchsorted(objects.image, np.arange(len(tables.image_ids) + 1))
    for image_id, boxes in rows.items():
        place = places[image_id]
        boxes += [
            {
                "kind": "found",
                "class": tables.names[objects.label[n]],
                "score": None,
                "box": objects.box[n].tolist(),
            }
            for n in range(starts[place], starts[place + 1])
        ]
    return [{"image_id": image_id, "boxes": boxes} for image_id, boxes in rows.items()]
