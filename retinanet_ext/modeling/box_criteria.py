"""Registered box losses: settings from the config, arithmetic from `..losses`.

Letters: P positive anchors.
"""

from __future__ import annotations

from typing import Any

from detectron2.config import configurable
from detectron2.modeling.box_regression import Box2BoxTransform
from torch import Tensor, nn

from ..losses.box import iou_box_loss, smooth_l1_box_loss
from ..losses.precision import at_least_float32
from ..registry import BOX_LOSS_REGISTRY

BOX_LOSS_ALIASES = {"smooth_l1": "SmoothL1", "giou": "GIoU", "diou": "DIoU", "ciou": "CIoU"}
"""Detectron2's values of MODEL.RETINANET.BBOX_REG_LOSS_TYPE and the entries they stand for."""


class _BoxLoss(nn.Module):
    """Base of the box losses: holds the transform between deltas and boxes."""

    def __init__(self, box2box_transform: Box2BoxTransform):
        super().__init__()
        self.box2box_transform = box2box_transform

    @classmethod
    def from_config(cls, cfg: Any) -> dict[str, Any]:
        return {"box2box_transform": Box2BoxTransform(cfg.MODEL.RETINANET.BBOX_REG_WEIGHTS)}


@BOX_LOSS_REGISTRY.register()
class SmoothL1(_BoxLoss):
    """Smooth L1 between predicted and wanted deltas; beta 0 is L1."""

    @configurable
    def __init__(self, *, box2box_transform: Box2BoxTransform, beta: float = 0.0):
        super().__init__(box2box_transform)
        if not beta >= 0:
            raise ValueError(f"MODEL.RETINANET.SMOOTH_L1_LOSS_BETA must be >= 0, got {beta}")
        self.beta = beta

    @classmethod
    def from_config(cls, cfg: Any) -> dict[str, Any]:
        return {**super().from_config(cfg), "beta": cfg.MODEL.RETINANET.SMOOTH_L1_LOSS_BETA}

    def forward(self, deltas: Tensor, anchors: Tensor, gt_boxes: Tensor) -> Tensor:
        """Sum over P positives; all (P, 4), anchors and boxes in absolute XYXY pixels."""
        target_deltas = self.box2box_transform.get_deltas(anchors, gt_boxes)
        return smooth_l1_box_loss(deltas, target_deltas, self.beta)


class _IoULoss(_BoxLoss):
    kind = ""

    @configurable
    def __init__(self, *, box2box_transform: Box2BoxTransform):
        super().__init__(box2box_transform)

    def forward(self, deltas: Tensor, anchors: Tensor, gt_boxes: Tensor) -> Tensor:
        """Sum over P positives; all (P, 4), anchors and boxes in absolute XYXY pixels."""
        boxes = self.box2box_transform.apply_deltas(at_least_float32(deltas), anchors)
        return iou_box_loss(boxes, gt_boxes, self.kind)


@BOX_LOSS_REGISTRY.register()
class GIoU(_IoULoss):
    """Generalized IoU loss on the decoded boxes."""

    kind = "giou"


@BOX_LOSS_REGISTRY.register()
class DIoU(_IoULoss):
    """Distance IoU loss on the decoded boxes."""

    kind = "diou"


@BOX_LOSS_REGISTRY.register()
class CIoU(_IoULoss):
    """Complete IoU loss on the decoded boxes."""

    kind = "ciou"


def build_box_loss(cfg: Any) -> nn.Module:
    """Build the box loss that MODEL.RETINANET.BBOX_REG_LOSS_TYPE names.

    Raises:
        KeyError: if it names neither one of Detectron2's types nor a registered box loss.
    """
    name = cfg.MODEL.RETINANET.BBOX_REG_LOSS_TYPE
    return BOX_LOSS_REGISTRY.get(BOX_LOSS_ALIASES.get(name, name))(cfg)
