"""How many anchors each object is matched to, by the rules of training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from ..boxes import AnchorLevel
from ..modeling.assigners.matching import ChunkedMatcher
from .training_boxes import TrainingBoxes

__all__ = ["Matches", "count_matches"]


@dataclass(frozen=True, eq=False)
class Matches:
    """Of m objects in the views looked at.

    Attributes:
        counts: (m, L) int64 positive anchors of each object on each level.
        without_low_quality: (m,) int64 those that are positive by their IoU only.
        with_low_quality: (m,) int64 those where the best anchors of each object are positive too.
        num_views: views looked at.
    """

    counts: np.ndarray
    without_low_quality: np.ndarray
    with_low_quality: np.ndarray
    num_views: int

    @property
    def unmatched(self) -> float:
        """Share of objects without any positive anchor."""
        return float((self.counts.sum(axis=1) == 0).mean())

    @property
    def low_quality_only(self) -> float:
        """Share of objects that have anchors with low-quality matches only."""
        return float(((self.without_low_quality == 0) & (self.with_low_quality > 0)).mean())


def count_matches(
    boxes: TrainingBoxes,
    levels: Sequence[AnchorLevel],
    thresholds: Sequence[float],
    labels: Sequence[int],
    allow_low_quality_matches: bool,
    max_views: int = 0,
) -> Matches:
    """Match all anchors of each view, as training does with a batch of only this view.

    Args:
        boxes: the objects.
        levels: the anchors.
        thresholds, labels: MODEL.RETINANET.IOU_THRESHOLDS and IOU_LABELS.
        allow_low_quality_matches: MODEL.RETINANET.ALLOW_LOW_QUALITY_MATCHES.
        max_views: look at this number of views, spread evenly; 0 for all.
    """
    matchers = [ChunkedMatcher(thresholds, labels, allow) for allow in (False, True)]

    # Few sizes come up again and again; one of 800 x 1333 takes 3 MB.
    @lru_cache(maxsize=8)
    def anchors_of(width: int, height: int) -> tuple[Tensor, Tensor]:
        grids = [_grid(level, width, height) for level in levels]
        index = [torch.full((len(grid),), i) for i, grid in enumerate(grids)]
        return torch.cat(grids), torch.cat(index)

    views = np.unique(boxes.view_of)
    if 0 < max_views < len(views):
        views = views[(np.arange(max_views) * 2 + 1) * len(views) // (2 * max_views)]
    found: list[list[np.ndarray]] = [[], []]
    for view in views.tolist():
        start, end = np.searchsorted(boxes.view_of, [view, view + 1])
        gt_boxes = torch.as_tensor(boxes.boxes[start:end], dtype=torch.float32)
        anchors, level_of = anchors_of(*boxes.sizes[view].tolist())
        for matcher, counts in zip(matchers, found, strict=True):
            matched, label = matcher(gt_boxes, anchors)
            positive = label == 1
            place = matched[positive] * len(levels) + level_of[positive]
            count = torch.bincount(place, minlength=len(gt_boxes) * len(levels))
            counts.append(count.reshape(-1, len(levels)).numpy())
    without, with_low = (np.concatenate(x) for x in found)
    return Matches(
        counts=with_low if allow_low_quality_matches else without,
        without_low_quality=without.sum(axis=1),
        with_low_quality=with_low.sum(axis=1),
        num_views=len(views),
    )


def _grid(level: AnchorLevel, width: int, height: int) -> Tensor:
    """(Hi*Wi*A, 4) anchors of one level over an image of this size."""
    x, y = (
        (torch.arange(-(-side // int(level.stride))) + level.offset) * level.stride
        for side in (width, height)
    )
    rows, columns = torch.meshgrid(y, x, indexing="ij")
    centres = torch.stack((columns, rows, columns, rows), dim=-1)[:, :, None]
    cells = torch.as_tensor(np.asarray(level.cells), dtype=torch.float32)
    return (centres + cells).reshape(-1, 4)
