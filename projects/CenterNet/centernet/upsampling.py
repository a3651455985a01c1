"""A ResNet with steps up to stride 4, as of *Objects as Points* (Sec. 5), without deformation.

Each step is a 3x3 convolution, where the authors have a deformable one, and a transposed one that
doubles the map. So does mmdet's ``ctresnet18`` without ``dcn``.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec, get_norm
from detectron2.modeling import BACKBONE_REGISTRY, Backbone, build_resnet_backbone
from torch import Tensor, nn

from retinanet_ext.registry import reads, register_once

from .keys import SECTION

__all__ = ["UpsamplingBackbone", "build_resnet_upsampling_backbone"]


class UpsamplingBackbone(Backbone):
    """The coarsest map of a backbone, doubled several times.

    Its one output is named after its stride as in a pyramid, "p2" for 4.
    """

    def __init__(self, bottom_up: Backbone, channels: Sequence[int], norm: str = "BN"):
        """
        Args:
            bottom_up: a backbone of Detectron2's.
            channels: after each step.
            norm: after each convolution, as of MODEL.RESNETS.NORM.
        """
        super().__init__()
        self.bottom_up = bottom_up
        shapes = bottom_up.output_shape()
        self._in_feature = max(shapes, key=lambda name: shapes[name].stride)
        coarsest = shapes[self._in_feature]
        steps: list[nn.Module] = []
        before = coarsest.channels
        for width in channels:
            steps.append(_step(before, width, norm))
            before = width
        self.steps = nn.Sequential(*steps)
        stride = coarsest.stride >> len(channels)
        self._out_features = [f"p{stride.bit_length() - 1}"]
        self._shape = ShapeSpec(channels=before, stride=stride)
        self._size_divisibility = coarsest.stride

    @property
    def size_divisibility(self) -> int:
        """Of the input's sides, so that the doubled map has the size that its stride says."""
        return self._size_divisibility

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """One map by name, (N, C, H / stride, W / stride), of images (N, 3, H, W)."""
        return {self._out_features[0]: self.steps(self.bottom_up(x)[self._in_feature])}

    def output_shape(self) -> dict[str, ShapeSpec]:
        return {self._out_features[0]: self._shape}


def _step(before: int, width: int, norm: str) -> nn.Sequential:
    conv = nn.Conv2d(before, width, 3, padding=1, bias=False)
    up = nn.ConvTranspose2d(width, width, 4, stride=2, padding=1, bias=False)
    with torch.no_grad():
        up.weight.zero_()
        for i in range(width):  # each channel by itself, bilinear: the authors' start
            up.weight[i, i] = _bilinear(4)
    return nn.Sequential(
        conv, get_norm(norm, width), nn.ReLU(), up, get_norm(norm, width), nn.ReLU()
    )


def _bilinear(side: int) -> Tensor:
    """The kernel (side, side) that doubles a map by bilinear interpolation; side is even."""
    profile = 1 - ((torch.arange(side) + 0.5) / (side / 2) - 1).abs()
    return profile[:, None] * profile[None, :]


@register_once(BACKBONE_REGISTRY)
@reads(f"{SECTION}.UPSAMPLING_CHANNELS")
def build_resnet_upsampling_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> UpsamplingBackbone:
    """Detectron2's ResNet and steps up to stride 4 from its last stage, ``res5``."""
    bottom_up = build_resnet_backbone(cfg, input_shape)
    norm = cfg.MODEL.RESNETS.NORM
    channels = cfg.MODEL.CENTERNET.UPSAMPLING_CHANNELS
    # A frozen norm of random layers would be none.
    return UpsamplingBackbone(bottom_up, channels, "BN" if norm == "FrozenBN" else norm)
