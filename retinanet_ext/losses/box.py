"""Box regression losses over the positive anchors; known formulas are torch's and torchvision's.

Letters: P pairs of a predicted and a true box.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import distance_box_iou_loss, generalized_box_iou_loss

from .precision import at_least_float32

# Added to a divisor, or the least width and height where only their ratio counts; torchvision's.
_EPS = 1e-7


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


def order_corners(boxes: Tensor) -> Tensor:
    """Boxes (P, 4) with x1 <= x2 and y1 <= y2: an inverted one is what lies between its corners.

    Boxes that are not inverted, those without area too, keep their values and gradients.
    """
    first, second = boxes.split(2, dim=1)
    # Not minimum and maximum: where both are equal, these would mix the gradients of two corners.
    inverted = second < first
    return torch.cat([second.where(inverted, first), first.where(inverted, second)], dim=1)


def _iou(boxes: Tensor, gt_boxes: Tensor) -> Tensor:
    """IoU (P,) of P pairs; 0 for two boxes without area."""
    top_left = torch.maximum(boxes[:, :2], gt_boxes[:, :2])
    bottom_right = torch.minimum(boxes[:, 2:], gt_boxes[:, 2:])
    width, height = (bottom_right - top_left).clamp(min=0).unbind(dim=1)
    intersection = width * height
    (w, h), (gt_w, gt_h) = _sizes(boxes), _sizes(gt_boxes)
    return intersection / (w * h + gt_w * gt_h - intersection + _EPS)


def _sizes(boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Width and height (P,)."""
    width, height = (boxes[:, 2:] - boxes[:, :2]).unbind(dim=1)
    return width, height


def _iou_loss(boxes: Tensor, gt_boxes: Tensor) -> Tensor:
    return 1 - _iou(boxes, gt_boxes)


def _generalized_iou_loss(boxes: Tensor, gt_boxes: Tensor) -> Tensor:
    """torchvision's, without a gradient for a pair whose enclosing box has no area.

    Its value is 1 there, but its gradient one pixel divided by almost nothing: 1e8 and more.
    """
    loss = generalized_box_iou_loss(boxes, gt_boxes)
    top_left = torch.minimum(boxes[:, :2], gt_boxes[:, :2])
    bottom_right = torch.maximum(boxes[:, 2:], gt_boxes[:, 2:])
    return loss.where((bottom_right - top_left).prod(dim=1) > _EPS, loss.detach())


def _complete_iou_loss(boxes: Tensor, gt_boxes: Tensor) -> Tensor:
    """CIoU (https://arxiv.org/abs/1911.08287, Eq. 8 to 11): DIoU and a term for the aspect ratio.

    torchvision's and Detectron2's divide width by height, which is NaN for a box without area. The
    angle of (width, height), neither of them below a tiny number, is the same but finite.
    """
    angle, gt_angle = (
        torch.atan2(*(size.clamp(min=_EPS) for size in _sizes(x))) for x in (boxes, gt_boxes)
    )
    v = 4 / math.pi**2 * (gt_angle - angle) ** 2
    with torch.no_grad():  # a trade-off weight, not a part of the loss to be minimized
        alpha = v / (1 - _iou(boxes, gt_boxes) + v + _EPS)
    return distance_box_iou_loss(boxes, gt_boxes) + alpha * v


BOX_IOU_LOSSES = {
    "iou": _iou_loss,
    "giou": _generalized_iou_loss,
    "diou": distance_box_iou_loss,
    "ciou": _complete_iou_loss,
}
"""Loss (P,) of P pairs of ordered boxes, by kind.

IoU is the linear 1 - IoU, whose minus logarithm (UnitBox, https://arxiv.org/abs/1608.01471) would
be infinite for boxes that do not overlap; these have loss 1 and no gradient here. GIoU
(https://arxiv.org/abs/1902.09630), DIoU and CIoU (https://arxiv.org/abs/1911.08287) move them too.
"""


def iou_box_loss(boxes: Tensor, gt_boxes: Tensor, kind: str) -> Tensor:
    """An IoU loss summed over P pairs of boxes.

    Value and gradient are finite for finite boxes below 1e9 pixels, those without area and inverted
    ones too (see :func:`order_corners`).

    Args:
        boxes, gt_boxes: (P, 4), absolute XYXY pixels.
        kind: a key of :data:`BOX_IOU_LOSSES`.

    Raises:
        ValueError: if ``kind`` is unknown.
    """
    if kind not in BOX_IOU_LOSSES:
        raise ValueError(f"kind must be one of {', '.join(BOX_IOU_LOSSES)}, got '{kind}'")
    boxes, gt_boxes = (order_corners(at_least_float32(x)) for x in (boxes, gt_boxes))
    return BOX_IOU_LOSSES[kind](boxes, gt_boxes).sum()
