"""The focal loss with an alpha for each class, given or from the numbers of objects.

Letters: N images, A anchors per location, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from torch import Tensor

from ...errors import InputError
from ...losses.cross_entropy import CLASS_BALANCES, class_alphas, class_balanced_focal_loss
from ...losses.focal import check_focal_arguments, focal_loss
from ...registry import CLS_LOSS_REGISTRY, node_of
from ...structures import DenseTargets
from .classification import SigmoidLoss


@CLS_LOSS_REGISTRY.register()
class ClassBalancedFocal(SigmoidLoss):
    """Focal loss with an alpha per class: alpha_k for positives of k, 1 - alpha_k for the rest.

    :func:`retinanet_ext.losses.class_alphas` makes them from numbers of objects.
    """

    config_keys = (
        "FOCAL_LOSS_ALPHA",
        "FOCAL_LOSS_GAMMA",
        "CLASS_BALANCE",
        "CLASS_ALPHA",
        "CLASS_COUNTS",
        "CLASS_BALANCE_BETA",
    )

    @configurable
    def __init__(self, *, alphas: Sequence[float] | None, gamma: float = 2.0):
        """
        Args:
            alphas: K numbers in [0, 1]. None where the objects were not counted, as where the
                model is only evaluated, which needs no training data: then there is no loss.
            gamma: focusing parameter; 0 is class-balanced cross entropy.
        """
        super().__init__()
        check_focal_arguments(-1, gamma)
        if alphas is not None and not (alphas and all(0 <= alpha <= 1 for alpha in alphas)):
            raise InputError(f"alphas must be in [0, 1], one for each class, got {list(alphas)}")
        self.gamma = gamma
        self.alphas: Tensor | None
        values = None if alphas is None else torch.tensor(alphas, dtype=torch.float32)
        # A setting, not a weight: it stays out of checkpoints.
        self.register_buffer("alphas", values, persistent=False)

    @classmethod
    def from_config(cls, cfg: CfgNode, node: CfgNode | None = None) -> dict[str, Any]:
        node = node_of(cfg, node)
        return {"alphas": _configured_alphas(node), "gamma": node.FOCAL_LOSS_GAMMA}

    @classmethod
    def needs_class_counts(cls, node: CfgNode) -> bool:
        """Whether CLASS_COUNTS has to hold the objects of each class before training."""
        return node.CLASS_BALANCE != "given"

    def _by_labels(self, logits: list[Tensor], targets: DenseTargets) -> Tensor:
        return class_balanced_focal_loss(
            logits, targets.labels, targets.num_classes, self._known_alphas(), self.gamma
        )

    def _entry_loss(self, x: Tensor, is_positive: Tensor, classes: Tensor) -> Tensor:
        alphas = self._known_alphas()[classes]
        weight = torch.where(is_positive, alphas, 1 - alphas)
        return weight * focal_loss(x, is_positive, alpha=-1, gamma=self.gamma)

    def _known_alphas(self) -> Tensor:
        if self.alphas is None:
            raise InputError(
                "MODEL.RETINANET.CLASS_COUNTS is empty, so the loss ClassBalancedFocal has no "
                "alphas; retinanet_ext.engine.setup fills it, or set it to "
                "retinanet_ext.data.count_classes(cfg.DATASETS.TRAIN, NUM_CLASSES)"
            )
        return self.alphas


def _configured_alphas(node: CfgNode) -> list[float] | None:
    """The alpha of each class as MODEL.RETINANET.CLASS_BALANCE asks; None without CLASS_COUNTS.

    Raises:
        InputError: if it is unknown, what it needs is missing or is not one number for each class,
            or CLASS_ALPHA would be ignored.
    """
    balance, prefix = node.CLASS_BALANCE, "MODEL.RETINANET."
    if balance not in ("given", *CLASS_BALANCES):
        known = ", ".join(("given", *CLASS_BALANCES))
        raise InputError(f"{prefix}CLASS_BALANCE must be one of {known}, got '{balance}'")
    if balance != "given" and node.CLASS_ALPHA:
        raise InputError(
            f"{prefix}CLASS_ALPHA is set, but CLASS_BALANCE '{balance}' does not read it; set "
            "CLASS_BALANCE to 'given'"
        )
    key = "CLASS_ALPHA" if balance == "given" else "CLASS_COUNTS"
    if key == "CLASS_COUNTS" and len(node.CLASS_COUNTS) == 0:
        return None
    if len(node[key]) != node.NUM_CLASSES:
        raise InputError(
            f"{prefix}{key} has {len(node[key])} values, but CLASS_BALANCE '{balance}' needs one "
            f"for each of {prefix}NUM_CLASSES = {node.NUM_CLASSES}"
        )
    if balance == "given":
        return list(node.CLASS_ALPHA)
    return class_alphas(node.CLASS_COUNTS, node.FOCAL_LOSS_ALPHA, balance, node.CLASS_BALANCE_BETA)
