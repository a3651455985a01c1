"""Assigners: which ground-truth box, if any, each anchor has to predict.

Letters: N images, R anchors over all levels, M ground-truth boxes of an image, K classes.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from detectron2.config import configurable
from detectron2.structures import Boxes, Instances
from torch import Tensor

from ..registry import ASSIGNER_REGISTRY
from ..structures import IGNORE_LABEL, DenseTargets
from .matching import ChunkedMatcher


@ASSIGNER_REGISTRY.register()
class IoUAssigner:
    """Assign by IoU thresholds (Sec. 4, "Anchors"): object from 0.5, background below 0.4.

    Anchors in between are ignored. With ``allow_low_quality_matches`` (Detectron2's rule, not the
    paper's) the best anchors of a ground-truth box are positive whatever their IoU, as long as they
    overlap it at all: a box that overlaps no anchor (outside of the image, or without area) is
    nobody's target, while Detectron2 would make every anchor that misses it a positive.
    """

    @configurable
    def __init__(
        self,
        *,
        num_classes: int,
        iou_thresholds: Sequence[float] = (0.4, 0.5),
        iou_labels: Sequence[int] = (0, -1, 1),
        allow_low_quality_matches: bool = True,
    ):
        """
        Args:
            num_classes: K; background gets this label.
            iou_thresholds: rising, in (0, 1).
            iou_labels: what an anchor is in each band: 0 background, -1 ignored, 1 object; one more
                than there are thresholds.
            allow_low_quality_matches: see the class.

        Raises:
            ValueError: if thresholds and labels do not fit together.
        """
        check_iou_bands(iou_thresholds, iou_labels)
        self.num_classes = num_classes
        self.matcher = ChunkedMatcher(iou_thresholds, iou_labels, allow_low_quality_matches)

    @classmethod
    def from_config(cls, cfg: Any) -> dict[str, Any]:
        node = cfg.MODEL.RETINANET
        return {
            "num_classes": node.NUM_CLASSES,
            "iou_thresholds": node.IOU_THRESHOLDS,
            "iou_labels": node.IOU_LABELS,
            "allow_low_quality_matches": node.ALLOW_LOW_QUALITY_MATCHES,
        }

    @torch.no_grad()
    def __call__(self, anchors: list[Boxes], gt_instances: list[Instances]) -> DenseTargets:
        """Label the anchors of N images.

        Args:
            anchors: L Boxes (Hi*Wi*A, 4), the same for all images.
            gt_instances: N Instances with ``gt_boxes`` and ``gt_classes`` in [0, K).
        """
        all_anchors = Boxes.cat(anchors).tensor
        per_image = [self._assign_image(all_anchors, gt) for gt in gt_instances]
        labels, boxes = zip(*per_image, strict=True)
        return DenseTargets(torch.stack(labels), torch.stack(boxes), self.num_classes)

    def _assign_image(self, anchors: Tensor, gt: Instances) -> tuple[Tensor, Tensor]:
        if len(gt) == 0:
            background = torch.full((len(anchors),), self.num_classes, device=anchors.device)
            return background, torch.zeros_like(anchors)
        gt_boxes = gt.gt_boxes.tensor
        matched_indices, match_labels = self.matcher(gt_boxes, anchors)
        labels = gt.gt_classes.to(torch.int64).index_select(0, matched_indices)
        labels.masked_fill_(match_labels == 0, self.num_classes)
        labels.masked_fill_(match_labels == -1, IGNORE_LABEL)
        return labels, gt_boxes.index_select(0, matched_indices)


def check_iou_bands(thresholds: Sequence[float], labels: Sequence[int]) -> None:
    """Raise ValueError unless the thresholds rise within (0, 1) and there is a label per band."""
    rising = all(a <= b for a, b in itertools.pairwise(thresholds))
    if not thresholds or not rising or not all(0 < t < 1 for t in thresholds):
        raise ValueError(
            "MODEL.RETINANET.IOU_THRESHOLDS must rise within (0, 1), for example [0.4, 0.5], "
            f"got {list(thresholds)}"
        )
    if len(labels) != len(thresholds) + 1 or any(label not in (-1, 0, 1) for label in labels):
        raise ValueError(
            f"MODEL.RETINANET.IOU_LABELS must hold {len(thresholds) + 1} values out of 0 "
            f"(background), -1 (ignored) and 1 (object) for thresholds {list(thresholds)}, "
            f"got {list(labels)}"
        )
