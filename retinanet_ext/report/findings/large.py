"""Sure boxes of the whole picture: the mark of levels whose norms or anchors see too few values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ...evaluation.analysis.assignment import Assignment

__all__ = ["count_large_boxes"]

SCORE = 0.3
SHARE = 0.5  # of the picture


def count_large_boxes(
    assignment: Assignment, sizes: Mapping[Any, tuple[float, float]]
) -> dict[str, int]:
    """The report's ``large_boxes``: wrong detections that cover more than half of their picture.

    Args:
        assignment: of the detections; those with a score above 0.3 are looked at.
        sizes: image id -> height and width in pixels; pictures without a size are left out.

    Returns:
        ``count``, and in how many ``images``.
    """
    tables = assignment.tables
    detections = tables.detections
    area = np.array(
        [height * width for height, width in (sizes.get(i, (0, 0)) for i in tables.image_ids)]
    )
    rows = np.flatnonzero(assignment.wrong & (detections.score > SCORE))
    of_picture = area[detections.image[rows]] if len(rows) else np.zeros(0)
    large = detections.box[rows, 2:].prod(axis=1) > SHARE * of_picture
    found = rows[large & (of_picture > 0)]
    return {"count": len(found), "images": len(np.unique(detections.image[found]))}
