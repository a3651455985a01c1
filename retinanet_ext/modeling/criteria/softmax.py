"""Registered classification losses of a softmax over K classes and the background.

They need MODEL.RETINANET.CLASSIFIER softmax. Letters: N images, A anchors per location, K classes.
"""

from __future__ import annotations

from typing import Any, ClassVar

from detectron2.config import CfgNode, configurable
from torch import Tensor, nn

from ...losses.focal import check_focal_arguments, softmax_focal_loss
from ...registry import CLS_LOSS_REGISTRY, node_of
from ...structures import DenseTargets


class _SoftmaxLoss(nn.Module):
    """Base: the sum of the focal loss over all anchors that are not ignored."""

    classifiers = ("softmax",)
    alpha: float
    gamma: float

    def forward(self, logits: list[Tensor], targets: DenseTargets) -> Tensor:
        """Sum over anchors; logits are the head's (N, A*(K+1), Hi, Wi)."""
        name = type(self).__name__
        targets.require_one_class(name)
        targets.require_no_weights(name)
        return softmax_focal_loss(
            logits, targets.labels, targets.num_classes, self.alpha, self.gamma
        ).sum()


@CLS_LOSS_REGISTRY.register()
class SoftmaxCE(_SoftmaxLoss):
    """Cross entropy of every anchor, none weighed and none left out: where imbalance hurts."""

    config_keys: ClassVar[tuple[str, ...]] = ()
    alpha, gamma = -1.0, 0.0

    @configurable
    def __init__(self) -> None:
        super().__init__()

    @classmethod
    def from_config(cls, cfg: CfgNode, node: CfgNode | None = None) -> dict[str, Any]:
        return {}


@CLS_LOSS_REGISTRY.register()
class SoftmaxFocalLoss(_SoftmaxLoss):
    """Focal loss on the softmax's probability of the true label, of classes and background alike.

    The paper uses sigmoids (Sec. 3.3), and its loss is that of each of them.
    """

    config_keys: ClassVar[tuple[str, ...]] = ("FOCAL_LOSS_ALPHA", "FOCAL_LOSS_GAMMA")

    @configurable
    def __init__(self, *, alpha: float = 0.25, gamma: float = 2.0):
        """
        Args:
            alpha: weight of anchors with a class; of the background's it is 1 - alpha.
            gamma: focusing parameter.
        """
        super().__init__()
        check_focal_arguments(alpha, gamma)
        self.alpha, self.gamma = alpha, gamma

    @classmethod
    def from_config(cls, cfg: CfgNode, node: CfgNode | None = None) -> dict[str, Any]:
        node = node_of(cfg, node)
        return {"alpha": node.FOCAL_LOSS_ALPHA, "gamma": node.FOCAL_LOSS_GAMMA}
