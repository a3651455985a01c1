"""Registered classification losses: settings from the config, arithmetic from `..losses`.

Letters: N images, A anchors per location, K classes.
"""

from __future__ import annotations

from typing import Any

from detectron2.config import configurable
from torch import Tensor, nn

from ..losses.focal import check_focal_arguments, sigmoid_focal_loss
from ..losses.kernels.conv_focal import conv_focal_loss
from ..losses.kernels.dispatch import check_kernel
from ..registry import CLS_LOSS_REGISTRY
from ..structures import DenseTargets


@CLS_LOSS_REGISTRY.register()
class FocalLoss(nn.Module):
    """Focal loss over K independent sigmoids (Eq. 5): :func:`retinanet_ext.losses.focal_loss`."""

    @configurable
    def __init__(self, *, alpha: float = 0.25, gamma: float = 2.0, kernel: str = "auto"):
        super().__init__()
        check_focal_arguments(alpha, gamma)
        check_kernel(kernel)
        self.alpha = alpha
        self.gamma = gamma
        self.kernel = kernel

    @classmethod
    def from_config(cls, cfg: Any) -> dict[str, Any]:
        node = cfg.MODEL.RETINANET
        return {
            "alpha": node.FOCAL_LOSS_ALPHA,
            "gamma": node.FOCAL_LOSS_GAMMA,
            "kernel": node.LOSS_KERNEL,
        }

    def forward(self, logits: list[Tensor], targets: DenseTargets) -> Tensor:
        """Sum over anchors that are not ignored; logits are the head's (N, A*K, Hi, Wi)."""
        return sigmoid_focal_loss(
            logits,
            targets.labels,
            targets.num_classes,
            self.alpha,
            self.gamma,
            kernel=self.kernel,
        )

    def from_features(
        self, features: list[Tensor], conv: nn.Conv2d, targets: DenseTargets
    ) -> Tensor:
        """The same sum for ``logits = [conv(x) for x in features]``, which never exist as a whole.

        Args:
            features: L tensors (N, C, Hi, Wi).
            conv: of stride 1, to A*K channels in maps of the same size.
            targets: of the N images.
        """
        return conv_focal_loss(
            features,
            conv.weight,
            conv.bias,
            targets.labels,
            targets.num_classes,
            self.alpha,
            self.gamma,
            kernel=self.kernel,
        )
