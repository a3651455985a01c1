"""YOLO's losses of classes and boxes; that of objectness is the package's QUALITY_BRANCH.

Letters: N images, A anchors per location, K classes, P positive anchors.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode, configurable
from torch import Tensor, nn

from retinanet_ext.losses import sigmoid_focal_loss
from retinanet_ext.registry import BOX_LOSS_REGISTRY, CLS_LOSS_REGISTRY
from retinanet_ext.structures import IGNORE_LABEL, DenseTargets

from .coder import cell_targets


@CLS_LOSS_REGISTRY.register()
class PositivesBCE(nn.Module):
    """Cross entropy of K sigmoids, of anchors with an object only: p(class | object).

    What is an object, objectness says, so the background does not have to teach the classes.
    """

    config_keys: ClassVar[tuple[str, ...]] = ()

    @configurable
    def __init__(self) -> None:
        super().__init__()

    @classmethod
    def from_config(cls, cfg: CfgNode, node: CfgNode | None = None) -> dict[str, Any]:
        return {}

    def forward(self, logits: list[Tensor], targets: DenseTargets) -> Tensor:
        """Sum over positive anchors; logits are the head's (N, A*K, Hi, Wi)."""
        targets.require_one_class("PositivesBCE")
        targets.require_no_weights("PositivesBCE")
        labels = targets.labels.masked_fill(~targets.pos_mask, IGNORE_LABEL)
        return sigmoid_focal_loss(logits, labels, targets.num_classes, alpha=-1, gamma=0.0)


@BOX_LOSS_REGISTRY.register()
class YOLOBoxLoss(nn.Module):
    """Cross entropy of the centre's place in its cell, squared error of the log size.

    As in mmdet, which counts both twice: MODEL.RETINANET.BOX_LOSS_WEIGHT 2.
    """

    config_keys: ClassVar[tuple[str, ...]] = ()
    needs_strides = True

    @configurable
    def __init__(self) -> None:
        super().__init__()

    @classmethod
    def from_config(cls, cfg: CfgNode, node: CfgNode | None = None) -> dict[str, Any]:
        return {}

    def forward(self, deltas: Tensor, anchors: Tensor, gt_boxes: Tensor, strides: Tensor) -> Tensor:
        """Sum over P positives.

        Args:
            deltas: (P, 4), the numbers of :class:`.coder.YOLOBoxTransform`.
            anchors, gt_boxes: (P, 4), absolute XYXY pixels.
            strides: (P,) of the anchors, px.
        """
        offset, log_size = cell_targets(anchors, gt_boxes, strides)
        offset = offset.clamp(0, 1).to(deltas.dtype)
        of_centres = F.binary_cross_entropy_with_logits(deltas[:, :2], offset, reduction="sum")
        return of_centres + torch.square(deltas[:, 2:] - log_size).sum()
