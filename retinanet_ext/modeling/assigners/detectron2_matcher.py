"""Detectron2's ``Matcher``, and others of its interface, as assigners.

Letters: R anchors over all levels, M ground-truth boxes of an image.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from detectron2.modeling.matcher import Matcher
from detectron2.structures import Boxes, pairwise_iou
from torch import Tensor

from .iou import ImageAssigner, IoUAssigner


class MatcherAssigner(ImageAssigner):
    """Assign by what any matcher makes of the IoUs of an image."""

    def __init__(self, matcher: Callable[[Tensor], tuple[Tensor, Tensor]], num_classes: int):
        """
        Args:
            matcher: from IoUs (M, R) to the matched boxes (R,) in [0, M) and labels (R,): -1
                ignored, 0 background, 1 object.
            num_classes: K.
        """
        super().__init__(num_classes)
        self.matcher = matcher

    def _match(self, prepared: Tensor, gt_boxes: Tensor) -> tuple[Tensor, Tensor]:
        return self.matcher(pairwise_iou(Boxes(gt_boxes), Boxes(prepared)))


def assigner_of_matcher(matcher: Any, num_classes: int) -> ImageAssigner:
    """The assigner that does what ``anchor_matcher`` does in Detectron2's RetinaNet.

    Args:
        matcher: of class ``Matcher``, whose rules :class:`IoUAssigner` follows in less memory; or
            anything else of its interface, which is called with all IoUs of an image.
        num_classes: K.
    """
    if type(matcher) is not Matcher:
        return MatcherAssigner(matcher, num_classes)
    return IoUAssigner(
        num_classes=num_classes,
        iou_thresholds=list(matcher.thresholds[1:-1]),  # the outer ones are infinite
        iou_labels=list(matcher.labels),
        allow_low_quality_matches=matcher.allow_low_quality_matches,
    )
