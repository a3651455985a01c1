"""Registered classification losses whose targets are the IoU of the predicted boxes.

Letters: N images, A anchors per location, K classes, R anchors over all levels, P positive anchors.
"""

from __future__ import annotations

from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from torch import Tensor, nn

from ...losses.box import BOX_IOU_LOSSES, order_corners
from ...losses.kernels.dispatch import check_kernel
from ...losses.precision import at_least_float32
from ...losses.quality import (
    check_quality_focal_arguments,
    check_varifocal_arguments,
    sigmoid_quality_focal_loss,
    sigmoid_varifocal_loss,
)
from ...protocols import BoxCoder
from ...registry import CLS_LOSS_REGISTRY, node_of
from ...structures import DenseTargets
from ..coders import decode_boxes


@CLS_LOSS_REGISTRY.register()
class QualityFocalLoss(nn.Module):
    """Quality focal loss (arXiv 2006.04388): :func:`retinanet_ext.losses.quality_focal_loss`."""

    config_keys = ("QUALITY_FOCAL_BETA", "LOSS_KERNEL")
    needs_quality = True

    @configurable
    def __init__(self, *, beta: float = 2.0, kernel: str = "auto"):
        super().__init__()
        check_quality_focal_arguments(beta)
        check_kernel(kernel)
        self.beta = beta
        self.kernel = kernel

    @classmethod
    def from_config(cls, cfg: CfgNode, node: CfgNode | None = None) -> dict[str, Any]:
        node = node_of(cfg, node)
        return {"beta": node.QUALITY_FOCAL_BETA, "kernel": node.LOSS_KERNEL}

    def forward(self, logits: list[Tensor], targets: DenseTargets, quality: Tensor) -> Tensor:
        """Sum over anchors that are not ignored.

        Args:
            logits: the head's (N, A*K, Hi, Wi).
            targets: of the N images.
            quality: (N, R) in [0, 1], see :func:`box_quality`; read at positives only.
        """
        targets.require_one_class("QualityFocalLoss")
        targets.require_no_weights("QualityFocalLoss")
        return sigmoid_quality_focal_loss(
            logits, targets.labels, quality, targets.num_classes, self.beta, self.kernel
        )


@CLS_LOSS_REGISTRY.register()
class VarifocalLoss(nn.Module):
    """Varifocal loss (arXiv 2008.13367): :func:`retinanet_ext.losses.varifocal_loss`."""

    config_keys = ("VARIFOCAL_ALPHA", "VARIFOCAL_GAMMA", "LOSS_KERNEL")
    needs_quality = True

    @configurable
    def __init__(self, *, alpha: float = 0.75, gamma: float = 2.0, kernel: str = "auto"):
        super().__init__()
        check_varifocal_arguments(alpha, gamma)
        check_kernel(kernel)
        self.alpha = alpha
        self.gamma = gamma
        self.kernel = kernel

    @classmethod
    def from_config(cls, cfg: CfgNode, node: CfgNode | None = None) -> dict[str, Any]:
        node = node_of(cfg, node)
        return {
            "alpha": node.VARIFOCAL_ALPHA,
            "gamma": node.VARIFOCAL_GAMMA,
            "kernel": node.LOSS_KERNEL,
        }

    def forward(self, logits: list[Tensor], targets: DenseTargets, quality: Tensor) -> Tensor:
        """Sum over anchors that are not ignored; arguments of :class:`QualityFocalLoss`."""
        targets.require_one_class("VarifocalLoss")
        targets.require_no_weights("VarifocalLoss")
        return sigmoid_varifocal_loss(
            logits,
            targets.labels,
            quality,
            targets.num_classes,
            self.alpha,
            self.gamma,
            self.kernel,
        )


@torch.no_grad()
def box_quality(
    deltas: Tensor,
    anchors: Tensor,
    gt_boxes: Tensor,
    box2box_transform: BoxCoder,
    strides: Tensor | None = None,
) -> Tensor:
    """IoU (P,) in [0, 1] of P predicted boxes with their ground truth; it has no gradient.

    0 where a box is not finite or none of the two has an area. An inverted box is what lies between
    its corners.

    Args:
        deltas: (P, 4), predicted.
        anchors, gt_boxes: (P, 4), absolute XYXY pixels.
        box2box_transform: decodes the deltas, an entry of BOX_CODER_REGISTRY.
        strides: (P,) of the anchors, for a coder that needs them.
    """
    boxes = decode_boxes(box2box_transform, at_least_float32(deltas), anchors, strides)
    loss = BOX_IOU_LOSSES["iou"](order_corners(boxes), order_corners(gt_boxes.to(boxes.dtype)))
    return (1 - loss).nan_to_num(nan=0.0).clamp(0, 1)
