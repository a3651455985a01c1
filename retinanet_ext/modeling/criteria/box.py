"""Registered box losses: settings from the config, arithmetic from `..losses`.

Letters: P positive anchors.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from detectron2.config import CfgNode, configurable
from detectron2.modeling.box_regression import Box2BoxTransform
from torch import Tensor, nn

from ...errors import InputError
from ...losses.box import iou_box_loss, order_corners, smooth_l1_box_loss
from ...losses.precision import at_least_float32
from ...protocols import BoxCoder
from ...registry import BOX_CODER_REGISTRY, BOX_LOSS_REGISTRY, node_of
from ..coders import decode_boxes, encode_boxes, needs_strides

# Least size of an object in sizes of its anchor, as deltas see it.
_MIN_LOG_SIZE = math.log(1e-4)


class _BoxLoss(nn.Module):
    """Base of the box losses: holds the coder, the transform between deltas and boxes."""

    config_keys: ClassVar[tuple[str, ...]] = ()

    def __init__(self, box2box_transform: BoxCoder):
        super().__init__()
        self.box2box_transform = box2box_transform
        self.needs_strides = needs_strides(box2box_transform)

    @classmethod
    def from_config(cls, cfg: CfgNode, node: CfgNode | None = None) -> dict[str, Any]:
        return {"box2box_transform": BOX_CODER_REGISTRY.build(cfg, node=node)}


class _DeltaLoss(_BoxLoss):
    """Smooth L1 between predicted and wanted deltas, or whatever the coder makes of a box."""

    beta: float

    def forward(
        self, deltas: Tensor, anchors: Tensor, gt_boxes: Tensor, strides: Tensor | None = None
    ) -> Tensor:
        """Sum over P positives; all (P, 4), anchors and boxes in absolute XYXY pixels.

        Inverted boxes are what lies between their corners. ``strides`` (P,) are for the coder.
        """
        gt_boxes = order_corners(at_least_float32(gt_boxes))
        wanted = encode_boxes(self.box2box_transform, anchors, gt_boxes, strides)
        if isinstance(self.box2box_transform, Box2BoxTransform):
            # A box without area asks for log(0).
            dx, dy, dw, dh = wanted.unbind(dim=1)
            _, _, weight_w, weight_h = self.box2box_transform.weights
            dw = dw.clamp(min=weight_w * _MIN_LOG_SIZE)
            dh = dh.clamp(min=weight_h * _MIN_LOG_SIZE)
            wanted = torch.stack([dx, dy, dw, dh], dim=1)
        return smooth_l1_box_loss(deltas, wanted, self.beta)


@BOX_LOSS_REGISTRY.register()
class SmoothL1(_DeltaLoss):
    """Smooth L1 between predicted and wanted deltas; beta 0 is L1."""

    @configurable
    def __init__(self, *, box2box_transform: BoxCoder, beta: float = 0.0):
        super().__init__(box2box_transform)
        if not beta >= 0:
            raise InputError(f"MODEL.RETINANET.SMOOTH_L1_LOSS_BETA must be >= 0, got {beta}")
        self.beta = beta

    @classmethod
    def from_config(cls, cfg: CfgNode, node: CfgNode | None = None) -> dict[str, Any]:
        beta = node_of(cfg, node).SMOOTH_L1_LOSS_BETA
        return {**super().from_config(cfg, node), "beta": beta}


@BOX_LOSS_REGISTRY.register()
class L1(_DeltaLoss):
    """L1 between predicted and wanted deltas; reads no SMOOTH_L1_LOSS_BETA."""

    beta = 0.0

    @configurable
    def __init__(self, *, box2box_transform: BoxCoder):
        super().__init__(box2box_transform)


class _IoULoss(_BoxLoss):
    kind = ""

    @configurable
    def __init__(self, *, box2box_transform: BoxCoder):
        super().__init__(box2box_transform)

    def forward(
        self, deltas: Tensor, anchors: Tensor, gt_boxes: Tensor, strides: Tensor | None = None
    ) -> Tensor:
        """Sum over P positives; all (P, 4), anchors and boxes in absolute XYXY pixels.

        ``strides`` (P,) are for the coder.
        """
        coder, deltas = self.box2box_transform, at_least_float32(deltas)
        boxes = decode_boxes(coder, deltas, anchors, strides)
        return iou_box_loss(boxes, gt_boxes, self.kind)


@BOX_LOSS_REGISTRY.register()
class IoU(_IoULoss):
    """IoU loss, 1 - IoU, on the decoded boxes; none that does not overlap is moved."""

    kind = "iou"


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


class WeightedBoxLoss(nn.Module):
    """A box loss times a constant, the lambda of multi-task losses."""

    def __init__(self, box_loss: nn.Module, weight: float):
        """
        Args:
            box_loss: called with deltas, anchors and boxes, as an entry of BOX_LOSS_REGISTRY.
            weight: finite, at least 0.
        """
        super().__init__()
        if not 0 <= weight < math.inf:
            raise InputError(
                f"MODEL.RETINANET.BOX_LOSS_WEIGHT must be finite and >= 0, got {weight}"
            )
        self.box_loss = box_loss
        self.weight = weight
        self.uses_weights = getattr(box_loss, "uses_weights", False)
        self.needs_strides = getattr(box_loss, "needs_strides", False)

    def forward(
        self, deltas: Tensor, anchors: Tensor, gt_boxes: Tensor, **wanted: Tensor
    ) -> Tensor:
        """Weighted sum over P positives; all (P, 4), anchors and boxes in absolute XYXY pixels."""
        return self.weight * self.box_loss(deltas, anchors, gt_boxes, **wanted)


def build_box_loss(cfg: CfgNode, node: CfgNode | None = None) -> nn.Module:
    """Build the box loss that MODEL.RETINANET.BBOX_REG_LOSS_TYPE names, times BOX_LOSS_WEIGHT.

    Args:
        cfg: the config.
        node: the section to read. Default: ``MODEL.RETINANET``.

    Raises:
        ConfigError: if it names neither one of Detectron2's types nor a registered box loss.
        ValueError: if the weight is negative or not finite.
    """
    weight = node_of(cfg, node).BOX_LOSS_WEIGHT
    box_loss = BOX_LOSS_REGISTRY.build(cfg, node=node)
    return box_loss if weight == 1 else WeightedBoxLoss(box_loss, weight)
