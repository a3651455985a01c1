"""Feature pyramids up to P7 over any bottom-up network; RegNet from the config.

Detectron2 registers the paper's pyramid (P6 from C5) only for ResNet, and RegNet not at all. Its
parts are put together here; parameter names are those of Detectron2.
"""

from __future__ import annotations

import math

from detectron2.config import CfgNode
from detectron2.layers import FrozenBatchNorm2d, ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, Backbone
from detectron2.modeling.backbone.fpn import FPN, LastLevelP6P7
from detectron2.modeling.backbone.regnet import RegNet, ResBottleneckBlock, SimpleStem
from detectron2.modeling.backbone.resnet import ResNet
from torch import Tensor

from ...compat import NormBase
from ...errors import ConfigError, InputError, did_you_mean
from ...registry import reads, register_once

TOP_BLOCK_INPUTS = ("c5", "p5")
"""Values of MODEL.FPN.TOP_BLOCK_IN."""

NORM_EPS = 1e-5
"""PyTorch's and Detectron2's."""

REGNET_KEYS = (
    *("DEPTH", "W_0", "W_A", "W_M", "GROUP_WIDTH", "SE_RATIO", "STEM_WIDTH", "NORM"),
    "OUT_FEATURES",
)
"""Names in MODEL.REGNET."""


def check_bottom_up(cfg: CfgNode) -> None:
    """Raise unless :func:`build_fpn_backbone_p6p7` can stand on MODEL.FPN.BOTTOM_UP.

    Raises:
        ConfigError: if that is no entry of BACKBONE_REGISTRY.
        InputError: if it is that function itself.
    """
    bottom_up = cfg.MODEL.FPN.BOTTOM_UP
    known = sorted(dict(BACKBONE_REGISTRY))
    if bottom_up not in known:
        raise ConfigError(
            f"MODEL.FPN.BOTTOM_UP is '{bottom_up}', which is not registered."
            f"{did_you_mean(bottom_up, known)} Known: {', '.join(known)}. If it is your own, "
            "import the module that registers it."
        )
    if bottom_up == "build_fpn_backbone_p6p7":
        raise InputError(
            f"MODEL.FPN.BOTTOM_UP is '{bottom_up}', the pyramid itself; set it to the network "
            "under it, such as build_resnet_backbone"
        )


@register_once(BACKBONE_REGISTRY)
@reads(
    "MODEL.FPN.BOTTOM_UP",
    "MODEL.FPN.TOP_BLOCK_IN",
    "MODEL.FPN.TOP_BLOCK_RELU",
    "MODEL.RESNETS.NORM_EPS",
    check_config=check_bottom_up,
)
def build_fpn_backbone_p6p7(cfg: CfgNode, input_shape: ShapeSpec) -> FPN:
    """FPN that continues to P6 and P7 (Sec. 4, "Feature Pyramid Network Backbone").

    MODEL.FPN.BOTTOM_UP names the network under it, FPN.IN_FEATURES its outputs to start from (add
    the one of stride 4 for P2), and FPN.TOP_BLOCK_IN what P6 is computed from. With a ResNet and P6
    from C5 this is Detectron2's ``build_retinanet_resnet_fpn_backbone``.

    Args:
        cfg: the config.
        input_shape: channels of the images.

    Raises:
        ConfigError: if there is no such bottom-up network.
        InputError: if it lacks one of FPN.IN_FEATURES, or for another TOP_BLOCK_IN.
    """
    check_bottom_up(cfg)
    node = cfg.MODEL.FPN
    bottom_up = BACKBONE_REGISTRY.get(node.BOTTOM_UP)(cfg, input_shape)
    if cfg.MODEL.RESNETS.NORM_EPS != NORM_EPS:
        set_norm_eps(bottom_up, cfg.MODEL.RESNETS.NORM_EPS, node.BOTTOM_UP)
    return build_pyramid(
        cfg, bottom_up, node.BOTTOM_UP, node.TOP_BLOCK_IN, relu=node.TOP_BLOCK_RELU
    )


def set_norm_eps(network: Backbone, eps: float, name: str) -> None:
    """Set what the batch norms of a ResNet add to the variance.

    Args:
        network: changed in place.
        eps: MODEL.RESNETS.NORM_EPS.
        name: of the network, for the error.

    Raises:
        InputError: it is no ResNet.
    """
    if not isinstance(network, ResNet):
        raise InputError(
            f"MODEL.RESNETS.NORM_EPS is {eps}, but MODEL.FPN.BOTTOM_UP is {name}, no ResNet, so "
            f"nothing would read it; set it to {NORM_EPS}"
        )
    for module in network.modules():
        if isinstance(module, (FrozenBatchNorm2d, NormBase)):
            module.eps = eps


class LastLevelP6P7Linear(LastLevelP6P7):
    """P6 and P7 without the ReLU between them, as mmdet's RetinaNet has them."""

    def forward(self, c5: Tensor) -> list[Tensor]:
        """(N, C, H, W) to P6 and P7, each of half the size of the one before."""
        p6 = self.p6(c5)
        return [p6, self.p7(p6)]


def build_pyramid(
    cfg: CfgNode, bottom_up: Backbone, name: str, top_block_in: str = "c5", relu: bool = True
) -> FPN:
    """The pyramid of MODEL.FPN over a network, up to P6 and P7.

    Args:
        cfg: the config.
        bottom_up: the network under it.
        name: what errors call that.
        top_block_in: what P6 is computed from, one of :data:`TOP_BLOCK_INPUTS`.
        relu: whether a ReLU stands between P6 and P7.

    Raises:
        InputError: the network lacks one of FPN.IN_FEATURES, or for another ``top_block_in``.
    """
    node = cfg.MODEL.FPN
    shapes = bottom_up.output_shape()
    for feature in node.IN_FEATURES or [""]:
        if feature not in shapes:
            raise InputError(
                f"MODEL.FPN.IN_FEATURES is {node.IN_FEATURES}, but "
                f"{name} gives {', '.join(shapes)}; name some of these, finest first."
                f"{did_you_mean(feature, shapes)}"
            )
    last = node.IN_FEATURES[-1]
    if top_block_in == "c5":
        in_channels, in_feature = shapes[last].channels, last
    elif top_block_in == "p5":
        in_channels, in_feature = node.OUT_CHANNELS, f"p{int(math.log2(shapes[last].stride))}"
    else:
        raise InputError(
            f"MODEL.FPN.TOP_BLOCK_IN is '{top_block_in}'; set it to one of "
            f"{', '.join(TOP_BLOCK_INPUTS)}"
        )
    top_block = LastLevelP6P7 if relu else LastLevelP6P7Linear
    return FPN(
        bottom_up=bottom_up,
        in_features=node.IN_FEATURES,
        out_channels=node.OUT_CHANNELS,
        norm=node.NORM,
        top_block=top_block(in_channels, node.OUT_CHANNELS, in_feature),
        fuse_type=node.FUSE_TYPE,
    )


@register_once(BACKBONE_REGISTRY)
@reads(*(f"MODEL.REGNET.{name}" for name in REGNET_KEYS))
def build_regnet_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> Backbone:
    """RegNet (Radosavovic et al., arXiv 2003.13678) of MODEL.REGNET, for images of 3 channels.

    Its first MODEL.BACKBONE.FREEZE_AT stages do not learn, the stem being the first.

    Args:
        cfg: the config.
        input_shape: channels of the images.

    Raises:
        ValueError: if images do not have 3 channels.
    """
    if input_shape.channels != 3:
        raise InputError(
            f"build_regnet_backbone takes images of 3 channels, but MODEL.PIXEL_MEAN has "
            f"{input_shape.channels}"
        )
    node = cfg.MODEL.REGNET
    return RegNet(
        stem_class=SimpleStem,
        stem_width=node.STEM_WIDTH,
        block_class=ResBottleneckBlock,
        depth=node.DEPTH,
        w_a=node.W_A,
        w_0=node.W_0,
        w_m=node.W_M,
        group_width=node.GROUP_WIDTH,
        se_ratio=node.SE_RATIO,
        freeze_at=cfg.MODEL.BACKBONE.FREEZE_AT,
        norm=node.NORM,
        out_features=node.OUT_FEATURES,
    )
