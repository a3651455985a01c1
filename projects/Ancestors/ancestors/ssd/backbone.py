"""A network of features that get coarser: the first stages of a ResNet, then a few more layers."""

from __future__ import annotations

from collections.abc import Sequence

from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec, get_norm
from detectron2.modeling import BACKBONE_REGISTRY, Backbone, build_resnet_backbone
from torch import Tensor, nn

from retinanet_ext import register_config_key
from retinanet_ext.errors import InputError
from retinanet_ext.registry import reads, register_once

# Channels of the layers after the ResNet, and their strides: 2 with padding, or 1 without, which
# makes a map of 3 x 3 one of 1 x 1.
register_config_key("MODEL.SSD.EXTRA_CHANNELS", [512, 256, 256, 256])
register_config_key("MODEL.SSD.EXTRA_STRIDES", [2, 2, 1, 1])
# Of these layers, see MODEL.RESNETS.NORM. Not BN: a map of 1 x 1 has too few values.
register_config_key("MODEL.SSD.NORM", "GN")

KEYS = tuple(f"MODEL.SSD.{name}" for name in ("EXTRA_CHANNELS", "EXTRA_STRIDES", "NORM"))


class SSDBackbone(Backbone):
    """``ssd0``, ``ssd1``, ...: the features of a network, and of layers on the last of them.

    In the place of SSD's VGG-16, whose conv4_3 and fc7 have the same sizes as res3 and res4.
    """

    def __init__(
        self, bottom_up: Backbone, channels: Sequence[int], strides: Sequence[int], norm: str = ""
    ):
        """
        Args:
            bottom_up: gives the finer levels.
            channels: of each further level.
            strides: 2 for half the size, or 1 for two rows and columns less.
            norm: a name for :func:`detectron2.layers.get_norm`.
        """
        super().__init__()
        if len(channels) != len(strides) or not set(strides) <= {1, 2}:
            raise InputError(
                f"MODEL.SSD.EXTRA_STRIDES is {list(strides)}; set it to 1 or 2 for each of "
                f"MODEL.SSD.EXTRA_CHANNELS {list(channels)}"
            )
        self.bottom_up = bottom_up
        found = bottom_up.output_shape()
        self._sources = list(found)
        shapes = list(found.values())
        self.extras = nn.ModuleList()
        for width, stride in zip(channels, strides, strict=True):
            last = shapes[-1]
            self.extras.append(_extra(last.channels, width, stride, norm))
            shapes.append(ShapeSpec(channels=width, stride=(last.stride or 1) * stride))
        self._shapes = {f"ssd{i}": shape for i, shape in enumerate(shapes)}

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Features of images (N, 3, H, W), by name."""
        found = self.bottom_up(x)
        features = [found[name] for name in self._sources]
        for extra in self.extras:
            features.append(extra(features[-1]))
        return dict(zip(self._shapes, features, strict=True))

    def output_shape(self) -> dict[str, ShapeSpec]:
        """Channels and stride of each level."""
        return dict(self._shapes)


def _extra(channels: int, width: int, stride: int, norm: str) -> nn.Sequential:
    """A 1x1 convolution to half the width, then a 3x3 one, as in SSD."""

    def layer(inputs: int, outputs: int, size: int, step: int, padding: int) -> list[nn.Module]:
        conv = nn.Conv2d(inputs, outputs, size, step, padding, bias=not norm)
        return [conv, *([get_norm(norm, outputs)] if norm else []), nn.ReLU()]

    narrow = width // 2
    coarser = layer(narrow, width, 3, stride, stride - 1)
    return nn.Sequential(*layer(channels, narrow, 1, 1, 0), *coarser)


@register_once(BACKBONE_REGISTRY)
@reads(*KEYS)
def build_ssd_resnet_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> SSDBackbone:
    """The ResNet of MODEL.RESNETS up to the last of its OUT_FEATURES, and MODEL.SSD's layers.

    Args:
        cfg: the config.
        input_shape: channels of the images.
    """
    node = cfg.MODEL.SSD
    bottom_up = build_resnet_backbone(cfg, input_shape)
    return SSDBackbone(bottom_up, node.EXTRA_CHANNELS, node.EXTRA_STRIDES, node.NORM)
