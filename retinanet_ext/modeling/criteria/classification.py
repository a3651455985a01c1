"""Registered classification losses: settings from the config, arithmetic from `..losses`.

Letters: N images, A anchors per location, K classes.
"""

from __future__ import annotations

from functools import partial
from typing import Any, ClassVar

from detectron2.config import CfgNode, configurable
from torch import Tensor, nn

from ...losses.conv_focal import conv_focal_loss
from ...losses.focal import check_focal_arguments, focal_loss, sigmoid_focal_loss
from ...losses.kernels.dispatch import check_kernel
from ...losses.multi_label import conv_extra_positive_loss, extra_positive_loss
from ...losses.star import check_star_arguments, focal_loss_star, sigmoid_focal_loss_star
from ...registry import CLS_LOSS_REGISTRY, node_of
from ...structures import DenseTargets


class SigmoidLoss(nn.Module):
    """Base of losses that are a sum over independent sigmoids, so an anchor may have many classes.

    A subclass says what the loss is for one label per anchor, and what a single entry costs.
    """

    config_keys: ClassVar[tuple[str, ...]] = ()
    multi_label = True

    def forward(self, logits: list[Tensor], targets: DenseTargets) -> Tensor:
        """Sum over anchors that are not ignored; logits are the head's (N, A*K, Hi, Wi)."""
        targets.require_no_weights(type(self).__name__)
        total, extra = self._by_labels(logits, targets), targets.extra
        if extra is None or len(extra) == 0:
            return total
        loss = partial(self._entry_loss, classes=extra[:, 2])
        return total + extra_positive_loss(logits, extra, targets.num_classes, loss)

    def _by_labels(self, logits: list[Tensor], targets: DenseTargets) -> Tensor:
        """The sum where an anchor's label is its only class."""
        raise NotImplementedError

    def _entry_loss(self, x: Tensor, is_positive: Tensor, classes: Tensor) -> Tensor:
        """Loss of E entries: logits, truths, and classes in [0, K), each (E,)."""
        raise NotImplementedError


class _SigmoidFocal(SigmoidLoss):
    """Base of the losses that are a focal loss with one alpha and gamma; all share its kernels."""

    config_keys: ClassVar[tuple[str, ...]] = ("LOSS_KERNEL",)

    def __init__(self, alpha: float, gamma: float, kernel: str):
        super().__init__()
        check_focal_arguments(alpha, gamma)
        check_kernel(kernel)
        self.alpha = alpha
        self.gamma = gamma
        self.kernel = kernel

    def _by_labels(self, logits: list[Tensor], targets: DenseTargets) -> Tensor:
        return sigmoid_focal_loss(
            logits,
            targets.labels,
            targets.num_classes,
            self.alpha,
            self.gamma,
            kernel=self.kernel,
        )

    def _entry_loss(self, x: Tensor, is_positive: Tensor, classes: Tensor) -> Tensor:
        return focal_loss(x, is_positive, self.alpha, self.gamma)

    def from_features(
        self, features: list[Tensor], conv: nn.Conv2d, targets: DenseTargets
    ) -> Tensor:
        """The same sum for ``logits = [conv(x) for x in features]``, which never exist as a whole.

        Args:
            features: L tensors (N, C, Hi, Wi).
            conv: of stride 1, to A*K channels in maps of the same size.
            targets: of the N images.
        """
        targets.require_no_weights(type(self).__name__)
        num_classes, extra = targets.num_classes, targets.extra
        total = conv_focal_loss(
            features,
            conv.weight,
            conv.bias,
            targets.labels,
            num_classes,
            self.alpha,
            self.gamma,
            kernel=self.kernel,
        )
        if extra is None or len(extra) == 0:
            return total
        loss = partial(self._entry_loss, classes=extra[:, 2])
        return total + conv_extra_positive_loss(
            features, conv.weight, conv.bias, extra, num_classes, loss
        )


@CLS_LOSS_REGISTRY.register()
class FocalLoss(_SigmoidFocal):
    """Focal loss over K independent sigmoids (Eq. 5): :func:`retinanet_ext.losses.focal_loss`."""

    from_features = _SigmoidFocal.from_features
    config_keys = ("FOCAL_LOSS_ALPHA", "FOCAL_LOSS_GAMMA", "LOSS_KERNEL")

    @configurable
    def __init__(self, *, alpha: float = 0.25, gamma: float = 2.0, kernel: str = "auto"):
        super().__init__(alpha, gamma, kernel)

    @classmethod
    def from_config(cls, cfg: CfgNode, node: CfgNode | None = None) -> dict[str, Any]:
        node = node_of(cfg, node)
        return {
            "alpha": node.FOCAL_LOSS_ALPHA,
            "gamma": node.FOCAL_LOSS_GAMMA,
            "kernel": node.LOSS_KERNEL,
        }


@CLS_LOSS_REGISTRY.register()
class BCE(_SigmoidFocal):
    """Cross entropy of K independent sigmoids, CE = -log(p_t) (Eq. 1): no alpha, gamma 0."""

    from_features = _SigmoidFocal.from_features

    @configurable
    def __init__(self, *, kernel: str = "auto"):
        super().__init__(-1, 0.0, kernel)

    @classmethod
    def from_config(cls, cfg: CfgNode, node: CfgNode | None = None) -> dict[str, Any]:
        return {"kernel": node_of(cfg, node).LOSS_KERNEL}


@CLS_LOSS_REGISTRY.register()
class BalancedBCE(_SigmoidFocal):
    """Balanced cross entropy, CE = -alpha_t log(p_t) (Eq. 3): the focal loss with gamma 0.

    The paper's best alpha is 0.75 (Table 1a), not the focal loss's 0.25.
    """

    from_features = _SigmoidFocal.from_features
    config_keys = ("FOCAL_LOSS_ALPHA", "LOSS_KERNEL")

    @configurable
    def __init__(self, *, alpha: float = 0.75, kernel: str = "auto"):
        super().__init__(alpha, 0.0, kernel)

    @classmethod
    def from_config(cls, cfg: CfgNode, node: CfgNode | None = None) -> dict[str, Any]:
        node = node_of(cfg, node)
        return {"alpha": node.FOCAL_LOSS_ALPHA, "kernel": node.LOSS_KERNEL}


@CLS_LOSS_REGISTRY.register()
class FocalLossStar(SigmoidLoss):
    """FL* (Appendix A), -log(sigmoid(gamma x_t + beta)) / gamma.

    The definition is :func:`retinanet_ext.losses.focal_loss_star`.
    """

    config_keys = ("FOCAL_STAR_GAMMA", "FOCAL_STAR_BETA", "FOCAL_STAR_ALPHA")

    @configurable
    def __init__(self, *, gamma: float = 2.0, beta: float = 1.0, alpha: float = -1):
        super().__init__()
        check_star_arguments(gamma, alpha)
        self.gamma = gamma
        self.beta = beta
        self.alpha = alpha

    @classmethod
    def from_config(cls, cfg: CfgNode, node: CfgNode | None = None) -> dict[str, Any]:
        node = node_of(cfg, node)
        return {
            "gamma": node.FOCAL_STAR_GAMMA,
            "beta": node.FOCAL_STAR_BETA,
            "alpha": node.FOCAL_STAR_ALPHA,
        }

    def _by_labels(self, logits: list[Tensor], targets: DenseTargets) -> Tensor:
        return sigmoid_focal_loss_star(
            logits, targets.labels, targets.num_classes, self.gamma, self.beta, self.alpha
        )

    def _entry_loss(self, x: Tensor, is_positive: Tensor, classes: Tensor) -> Tensor:
        return focal_loss_star(x, is_positive, self.gamma, self.beta, self.alpha)
