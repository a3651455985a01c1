"""Class counts and object sizes of a dataset, and how well anchors cover its objects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...boxes import AnchorLevel, best_anchor_iou
from .boxes import usable_boxes
from .findings import Fault
from .table import DatasetTable

__all__ = [
    "InputSize",
    "check_anchors",
    "check_classes",
    "count_objects",
    "describe_sizes",
]

IMBALANCE = 100  # most frequent over rarest class from which on it is worth a warning
COVER_IOU = 0.5  # IOU_THRESHOLDS of the paper, from which on an anchor is positive
MAX_UNCOVERED = 0.05  # share of objects that no anchor covers, above which there is a warning
SMALL, MEDIUM = 32.0, 96.0  # COCO's borders of small and medium objects, square root of the area


@dataclass(frozen=True)
class InputSize:
    """What images are resized to: the shorter side to ``short``, the longer to ``long`` at most."""

    short: float
    long: float

    def scales(self, sizes: np.ndarray) -> np.ndarray:
        """(n, 2) sizes -> (n,) factors; NaN for NaN."""
        return np.minimum(self.short / sizes.min(axis=1), self.long / sizes.max(axis=1))


def count_objects(table: DatasetTable) -> np.ndarray:
    """(K,) int64 usable objects of each class."""
    return np.bincount(table.class_of[usable_boxes(table)], minlength=len(table.class_names))


def check_classes(table: DatasetTable) -> list[Fault]:
    """Classes without objects, and very unequal ones."""
    counts = count_objects(table)
    if not counts.sum():
        return [Fault.of_dataset("no_objects", "no object with a usable box in the dataset")]
    faults = [
        Fault.of_dataset("empty_class", f"class '{table.class_names[i]}' has no objects")
        for i in np.flatnonzero(counts == 0)
    ]
    some = np.flatnonzero(counts)  # a class without objects is a fault of its own
    most, least = counts.argmax(), some[counts[some].argmin()]
    if counts[most] >= IMBALANCE * counts[least]:
        text = (
            f"class '{table.class_names[most]}' has {counts[most]} objects, "
            f"'{table.class_names[least]}' {counts[least]}; "
            "MODEL.RETINANET.CLS_LOSS ClassBalancedFocal weighs classes"
        )
        faults.append(Fault.of_dataset("imbalance", text))
    return faults


def describe_sizes(table: DatasetTable, input_size: InputSize) -> dict[str, Any]:
    """Sizes of the objects in the resized image.

    Returns:
        ``percentiles`` (1, 10, 50, 90, 99) of the square root of the area, in pixels, and the
        numbers of ``small``, ``medium`` and ``large`` objects by COCO's borders.
    """
    boxes, _ = _resized(table, input_size)
    if not len(boxes):
        return {"percentiles": {}, "small": 0, "medium": 0, "large": 0}
    side = np.sqrt((boxes[:, 2:] - boxes[:, :2]).prod(axis=1))
    points = (1, 10, 50, 90, 99)
    percentiles = [round(float(x), 2) for x in np.percentile(side, points)]
    small, large = int((side < SMALL).sum()), int((side > MEDIUM).sum())
    return {
        "percentiles": dict(zip(map(str, points), percentiles, strict=True)),
        "small": small,
        "medium": len(side) - small - large,
        "large": large,
    }


def check_anchors(
    table: DatasetTable, input_size: InputSize, levels: Sequence[AnchorLevel], divisor: int = 32
) -> tuple[dict[str, Any], list[Fault]]:
    """How many objects have no anchor with IoU 0.5.

    Args:
        divisor: resized images are padded to multiples of it.

    Returns:
        ``uncovered`` and ``objects``, numbers, and ``uncovered_by_class``; and the faults.
    """
    boxes, rows = _resized(table, input_size)
    sizes = table.image_sizes_of_boxes[rows]
    padded = np.ceil(np.round(sizes * input_size.scales(sizes)[:, None]) / divisor) * divisor
    missed = best_anchor_iou(boxes, padded, levels) < COVER_IOU
    by_class = np.bincount(table.class_of[rows][missed], minlength=len(table.class_names))
    numbers = {
        "iou": COVER_IOU,
        "objects": len(boxes),
        "uncovered": int(missed.sum()),
        "uncovered_by_class": {
            name: int(count) for name, count in zip(table.class_names, by_class, strict=True)
        },
    }
    if missed.sum() <= MAX_UNCOVERED * len(boxes):
        return numbers, []
    worst = table.class_names[by_class.argmax()]
    text = (
        f"no anchor covers {missed.sum()} of {len(boxes)} objects ({missed.mean():.1%}) at IoU "
        f"{COVER_IOU:g}, most of class '{worst}' ({by_class.max()}); adapt "
        "MODEL.ANCHOR_GENERATOR or raise INPUT.MIN_SIZE_TRAIN"
    )
    return numbers, [Fault.of_dataset("uncovered_objects", text)]


def _resized(table: DatasetTable, input_size: InputSize) -> tuple[np.ndarray, np.ndarray]:
    """(n, 4) XYXY of the usable objects in the resized image, and their rows (n,)."""
    sizes = table.image_sizes_of_boxes
    rows = np.flatnonzero(usable_boxes(table) & np.isfinite(sizes).all(axis=1))
    return table.xyxy[rows] * input_size.scales(sizes[rows])[:, None], rows
