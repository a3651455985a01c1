"""The findings about a subject: with what pictures are called, and their sizes."""

from __future__ import annotations

from typing import Any

from ..evaluation.analysis.results import Analysis
from .compute.options import ReportOptions
from .compute.subject import Subject, shown_file
from .findings import Look, findings_content

__all__ = ["named_findings"]


def named_findings(
    subject: Subject,
    analysis: Analysis,
    options: ReportOptions,
    look: Look | None,
    why_no_look: str = "",
) -> dict[str, Any]:
    """What :func:`.findings.findings_content` gives, with the ``file`` of each picture.

    Args:
        subject: what the report is about.
        analysis: of its detections.
        options: choices.
        look: the detector that made the detections; None where only these are known.
        why_no_look: a sentence where there is a detector, and it cannot be asked.
    """
    sizes = {
        i: (row["height"], row["width"])
        for i, row in subject.coco_gt.imgs.items()
        if row.get("height") and row.get("width")
    }
    content = findings_content(
        analysis.assignment,
        analysis.confusion.thresholds,
        analysis.errors,
        look,
        why_no_look,
        sizes,
        options.num_worst,
    )
    for row in (*content["worst"], *content["missing_labels"]):
        row["file"] = shown_file(subject, row["image_id"])
    return content
