"""Heads over the feature pyramid, with Detectron2's parameter names so that its weights load.

Letters: N images, C channels, A anchors per location, K classes, Hi x Wi locations of level i.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from detectron2.config import configurable
from detectron2.layers import CycleBatchNormList, ShapeSpec, get_norm
from torch import Tensor, nn

from ..registry import DENSE_HEAD_REGISTRY


def build_tower(
    in_channels: int, conv_dims: Sequence[int], norm: str, num_levels: int
) -> nn.Sequential:
    """Stack 3x3 convolution, norm and ReLU for each entry of ``conv_dims``.

    Batch statistics differ between pyramid levels, so "BN" and "SyncBN" keep one set per level
    (statistics only; the affine parameters are shared), visited in turn: such a tower has to be
    called level by level, from the first to the last.
    """
    layers: list[nn.Module] = []
    for dim in conv_dims:
        layers.append(nn.Conv2d(in_channels, dim, kernel_size=3, padding=1))
        if norm in ("BN", "SyncBN"):
            bn_class = nn.BatchNorm2d if norm == "BN" else nn.SyncBatchNorm
            layers.append(CycleBatchNormList(num_levels, bn_class, num_features=dim))
        elif norm:
            layers.append(get_norm(norm, dim))
        layers.append(nn.ReLU(inplace=True))
        in_channels = dim
    return nn.Sequential(*layers)


@DENSE_HEAD_REGISTRY.register()
class RetinaNetHead(nn.Module):
    """Two subnets of one shape with separate weights, shared across levels (Sec. 4, Fig. 3)."""

    @configurable
    def __init__(
        self,
        *,
        input_shape: Sequence[ShapeSpec],
        num_classes: int,
        num_anchors: int,
        conv_dims: Sequence[int],
        norm: str = "",
        prior_prob: float = 0.01,
    ):
        """
        Args:
            input_shape: channels and stride of each level; all levels have the same channels.
            num_classes: K.
            num_anchors: A.
            conv_dims: output channels of each convolution in a subnet.
            norm: "" or a name for :func:`detectron2.layers.get_norm`; "BN" and "SyncBN" keep
                statistics per level.
            prior_prob: pi, the probability of an object that a fresh head gives every anchor
                (Sec. 3.3), so that background does not swamp the first iterations.

        Raises:
            ValueError: if pi is outside of (0, 1) or the levels' channels differ.
        """
        super().__init__()
        if not 0 < prior_prob < 1:
            raise ValueError(f"MODEL.RETINANET.PRIOR_PROB must be in (0, 1), got {prior_prob}")
        channels = [shape.channels for shape in input_shape]
        if len(set(channels)) != 1:
            raise ValueError(
                "the head is shared across levels, so all of MODEL.RETINANET.IN_FEATURES need the "
                f"same channels, got {channels}"
            )
        self.num_classes = num_classes
        self.num_anchors = num_anchors
        self.cls_subnet = build_tower(channels[0], conv_dims, norm, len(channels))
        self.bbox_subnet = build_tower(channels[0], conv_dims, norm, len(channels))
        out_channels = [channels[0], *conv_dims][-1]
        self.cls_score = nn.Conv2d(out_channels, num_anchors * num_classes, 3, padding=1)
        self.bbox_pred = nn.Conv2d(out_channels, num_anchors * 4, 3, padding=1)
        self._init_weights(prior_prob)

    def _init_weights(self, prior_prob: float) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=0.01)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        assert self.cls_score.bias is not None, "the prior lives in the bias of the last layer"
        nn.init.constant_(self.cls_score.bias, -math.log((1 - prior_prob) / prior_prob))

    @classmethod
    def from_config(
        cls, cfg: Any, input_shape: Sequence[ShapeSpec], num_anchors: int
    ) -> dict[str, Any]:
        node = cfg.MODEL.RETINANET
        return {
            "input_shape": input_shape,
            "num_classes": node.NUM_CLASSES,
            "num_anchors": num_anchors,
            "conv_dims": [input_shape[0].channels] * node.NUM_CONVS,
            "norm": node.NORM,
            "prior_prob": node.PRIOR_PROB,
        }

    def forward(self, features: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Predict on L feature maps (N, C, Hi, Wi).

        Returns:
            logits: L tensors (N, A*K, Hi, Wi), deltas: L tensors (N, A*4, Hi, Wi).
        """
        logits = [self.cls_score(x) for x in self.cls_features(features)]
        return logits, self.deltas(features)

    def cls_features(self, features: list[Tensor]) -> list[Tensor]:
        """What ``cls_score`` turns into logits: L tensors (N, C, Hi, Wi)."""
        return [self.cls_subnet(x) for x in features]

    def deltas(self, features: list[Tensor]) -> list[Tensor]:
        """L tensors (N, A*4, Hi, Wi)."""
        return [self.bbox_pred(self.bbox_subnet(x)) for x in features]
