"""Registered classification loss whose target is a heat map, for detectors of centre points."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from detectron2.config import CfgNode, configurable
from torch import Tensor, nn

from ...losses.heatmap import check_heatmap_arguments, sum_of_heatmap_focal_loss
from ...registry import CLS_LOSS_REGISTRY, node_of
from ...structures import DenseTargets


@CLS_LOSS_REGISTRY.register()
class HeatmapFocal(nn.Module):
    """The loss of CenterNet (arXiv 1904.07850): :func:`retinanet_ext.losses.heatmap_focal_loss`.

    Targets without a heat map, as the assigners of RetinaNet give them, have 1 at the class of a
    positive anchor and 0 elsewhere: there it is the focal loss without alpha.
    """

    config_keys = ("FOCAL_LOSS_GAMMA", "HEATMAP_FOCAL_BETA")
    uses_heat = True

    @configurable
    def __init__(self, *, gamma: float = 2.0, beta: float = 4.0):
        super().__init__()
        check_heatmap_arguments(gamma, beta)
        self.gamma = gamma
        self.beta = beta

    @classmethod
    def from_config(cls, cfg: CfgNode, node: CfgNode | None = None) -> dict[str, Any]:
        node = node_of(cfg, node)
        return {"gamma": node.FOCAL_LOSS_GAMMA, "beta": node.HEATMAP_FOCAL_BETA}

    def forward(self, logits: list[Tensor], targets: DenseTargets) -> Tensor:
        """Sum over anchors that are not ignored; logits are the head's (N, A*K, Hi, Wi)."""
        targets.require_no_weights("HeatmapFocal")
        heat, labels = targets.heat, targets.labels
        if heat is None:
            targets.require_one_class("HeatmapFocal")
            one_hot = F.one_hot(labels.clamp(min=0), targets.num_classes + 1)
            heat = one_hot[..., :-1].to(logits[0].dtype)
        return sum_of_heatmap_focal_loss(logits, heat, labels, self.gamma, self.beta)
