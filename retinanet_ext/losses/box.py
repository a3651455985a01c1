"""Box regression losses over the positive anchors; the formulas are torch's and torchvision's."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import (
    complete_box_iou_loss,
    distance_box_iou_loss,
    generalized_box_iou_loss,
)

from .precision import at_least_float32

BOX_IOU_LOSSES = {
    "giou": generalized_box_iou_loss,
    "diou": distance_box_iou_loss,
    "ciou": complete_box_iou_loss,
}
"""GIoU (https://arxiv.org/abs/1902.09630), DIoU and CIoU (https://arxiv.org/abs/1911.08287)."""


def smooth_l1_box_loss(deltas: Tensor, target_deltas: Tensor, beta: float = 0.0) -> Tensor:
    """Smooth L1 (Fast R-CNN, https://arxiv.org/abs/1504.08083, Eq. 3) summed over P boxes.

    Args:
        deltas, target_deltas: (P, 4) as encoded by Detectron2's Box2BoxTransform.
        beta: |difference| at which the quadratic part ends; 0 is L1.

    Raises:
        ValueError: if beta is negative.
    """
    if not beta >= 0:
        raise ValueError(f"beta must be >= 0, got {beta}")
    deltas, target_deltas = at_least_float32(deltas), at_least_float32(target_deltas)
    return F.smooth_l1_loss(deltas, target_deltas, beta=beta, reduction="sum")


def iou_box_loss(boxes: Tensor, gt_boxes: Tensor, kind: str) -> Tensor:
    """An IoU loss summed over P pairs of boxes.

    Args:
        boxes, gt_boxes: (P, 4), absolute XYXY pixels.
        kind: a key of :data:`BOX_IOU_LOSSES`.

    Raises:
        ValueError: if ``kind`` is unknown.
    """
    if kind not in BOX_IOU_LOSSES:
        raise ValueError(f"kind must be one of {', '.join(BOX_IOU_LOSSES)}, got '{kind}'")
    boxes, gt_boxes = at_least_float32(boxes), at_least_float32(gt_boxes)
    return BOX_IOU_LOSSES[kind](boxes, gt_boxes, reduction="sum")
