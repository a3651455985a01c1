"""The findings of a report as plain dicts: misses, worst pictures, possibly missing annotations."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np

from ..evaluation.analysis.results import Analysis
from .compute.options import ReportOptions
from .compute.subject import Subject, shown_file
from .findings import (
    Look,
    count_large_boxes,
    explain_misses,
    possible_missing_labels,
    worst_pictures,
)

__all__ = ["add_findings"]

MOST_OBJECTS = 2000  # missed objects that are listed


def add_findings(
    content: dict[str, Any],
    subject: Subject,
    analysis: Analysis,
    options: ReportOptions,
    look: Look | None,
) -> None:
    """Add ``missed``, ``worst``, ``missing_labels`` and what else advice needs to ``content``.

    Args:
        content: of ``report.json``; is added to.
        subject: what the report is about.
        analysis: of its detections.
        options: choices.
        look: the detector that made the detections; None where only these are known.
    """
    assignment, thresholds = analysis.assignment, analysis.confusion.thresholds
    misses = explain_misses(assignment, thresholds, look)
    content["missed"] = misses.to_json(MOST_OBJECTS)
    worst = worst_pictures(assignment, thresholds, analysis.errors, misses, options.num_worst)
    content["worst"] = [
        {**one.to_json(), "file": shown_file(subject, one.image_id)} for one in worst
    ]
    content["missing_labels"] = _missing_labels(subject, analysis, options.num_worst)
    sure = possible_missing_labels(assignment, thresholds, None)
    content["possible_labels"] = {"count": len(sure)}
    sizes = {
        i: (row["height"], row["width"])
        for i, row in subject.coco_gt.imgs.items()
        if row.get("height") and row.get("width")
    }
    content["large_boxes"] = count_large_boxes(assignment, sizes)


def _missing_labels(subject: Subject, analysis: Analysis, most: int) -> list[dict[str, Any]]:
    """By picture, the one with the surest detection first, with what is annotated there."""
    assignment = analysis.assignment
    tables = assignment.tables
    objects = tables.objects
    of_picture: dict[Any, list[dict[str, Any]]] = defaultdict(list)
    for one in possible_missing_labels(assignment, analysis.confusion.thresholds, None):
        row = {"kind": "false", "class": one.name, "box": list(one.box), "score": one.score}
        of_picture[one.image_id].append(row)
    place = {image_id: i for i, image_id in enumerate(tables.image_ids)}
    found = []
    for image_id, boxes in list(of_picture.items())[:most]:
        start, end = np.searchsorted(objects.image, [place[image_id], place[image_id] + 1])
        annotated = [
            {
                "kind": "found",
                "class": tables.names[objects.label[n]],
                "box": objects.box[n].tolist(),
                "score": None,
            }
            for n in range(int(start), int(end))
        ]
        file = shown_file(subject, image_id)
        found.append({"image_id": image_id, "file": file, "boxes": [*boxes, *annotated]})
    return found
