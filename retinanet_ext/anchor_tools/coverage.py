"""How well anchors cover objects, whatever a model makes of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..boxes import AnchorLevel, best_anchor_iou
from ..data.doctor.statistics import MEDIUM, SMALL
from .training_boxes import TrainingBoxes

__all__ = ["IOUS", "SIZES", "Coverage", "coverage", "size_classes"]

# The paper's borders: background below the first, an object from the second on (Sec. 4, "Anchors").
IOUS = (0.4, 0.5)
SIZES = ("small", "medium", "large")


@dataclass(frozen=True)
class Coverage:
    """Of ``boxes`` boxes: the mean of the best IoU with any anchor, and the fraction of boxes with
    a best IoU from each of ``IOUS`` on (best-possible recall); NaN for no boxes."""

    boxes: int
    mean_best_iou: float
    recall: tuple[float, ...]

    @classmethod
    def of(cls, best_iou: np.ndarray) -> Coverage:
        """From the best IoU of each box (n,)."""
        if not len(best_iou):
            return cls(0, float("nan"), (float("nan"),) * len(IOUS))
        recall = tuple(float((best_iou >= iou).mean()) for iou in IOUS)
        return cls(len(best_iou), float(best_iou.mean()), recall)

    @property
    def recall_at_50(self) -> float:
        """Share of boxes with an anchor of IoU 0.5 or more."""
        return self.recall[IOUS.index(0.5)]


def coverage(boxes: TrainingBoxes, levels: Sequence[AnchorLevel]) -> Coverage:
    """Of all boxes, exactly."""
    return Coverage.of(best_anchor_iou(boxes.boxes, boxes.sizes_of_boxes, levels))


def size_classes(boxes: np.ndarray) -> np.ndarray:
    """(n, 4) -> (n,) index into ``SIZES``, by COCO's borders of 32 and 96 pixels."""
    side = np.sqrt((boxes[:, 2:] - boxes[:, :2]).prod(axis=1))
    return (side >= SMALL).astype(int) + (side > MEDIUM)
