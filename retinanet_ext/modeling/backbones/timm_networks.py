"""Networks of timm (PyTorch Image Models) under the pyramid, by name.

timm is optional; it has several hundred networks, ConvNeXt, MobileNet, Swin and DINO's ViTs among
them, and fetches their weights from Hugging Face.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Sequence
from typing import Any

from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, Backbone
from detectron2.modeling.backbone.fpn import FPN
from torch import Tensor, nn

from ...errors import ConfigError, InputError, MissingPackageError, did_you_mean
from ...registry import reads, register_once
from .build import build_pyramid

TIMM_KEYS = tuple(f"MODEL.TIMM.{x}" for x in ("NAME", "PRETRAINED", "OUT_INDICES", "CHECKPOINT"))

# Without them, networks with windows or embedded positions take one size of image. Each network
# knows one of these words at most.
_ANY_SIZE: tuple[dict[str, bool], ...] = ({"dynamic_img_size": True}, {"strict_img_size": False})


def import_timm(wanted_by: str) -> Any:
    """The package timm.

    Args:
        wanted_by: what needs it, for the message.

    Raises:
        MissingPackageError: it is not installed; says how to install it.
    """
    try:
        return importlib.import_module("timm")
    except ImportError as error:
        raise MissingPackageError(
            f"{wanted_by} needs the package timm, which is not installed: pip install timm"
        ) from error


class TimmBackbone(Backbone):
    """A network of timm; outputs are called by their stride, "c3" for 8 and so on.

    Of several outputs of one stride, the last counts.
    """

    def __init__(self, network: nn.Module, name: str):
        """
        Args:
            network: made by timm with ``features_only``.
            name: timm's, for errors.

        Raises:
            InputError: a stride is no power of two, or the outputs are no maps.
        """
        super().__init__()
        self.body = network
        info: Any = network.feature_info
        output_format: Any = getattr(network, "output_fmt", "NCHW")
        self._format = str(getattr(output_format, "value", output_format))
        if self._format not in ("NCHW", "NHWC"):
            raise InputError(
                f"MODEL.TIMM.NAME is '{name}', whose outputs are {self._format}, no maps of "
                "features; choose a network with NCHW or NHWC outputs"
            )
        strides = [int(x) for x in info.reduction()]
        if odd := sorted({x for x in strides if x & (x - 1)}):
            raise InputError(
                f"MODEL.TIMM.NAME is '{name}', whose outputs have strides of "
                f"{', '.join(map(str, odd))} pixels, and a pyramid needs powers of two; choose a "
                "network such as one with patches of 16 pixels"
            )
        names = [f"c{x.bit_length() - 1}" for x in strides]
        self._index = {key: i for i, key in enumerate(names)}
        self._out_features = list(self._index)
        self._out_feature_strides = {key: strides[i] for key, i in self._index.items()}
        channels = [int(x) for x in info.channels()]
        self._out_feature_channels = {key: channels[i] for key, i in self._index.items()}

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """(N, C, H, W) to maps (N, Ci, H / stride, W / stride) by name."""
        outputs = self.body(x)
        maps = {name: outputs[i] for name, i in self._index.items()}
        if self._format == "NHWC":
            maps = {name: x.permute(0, 3, 1, 2).contiguous() for name, x in maps.items()}
        return maps


def create_network(
    name: str,
    out_indices: Sequence[int] = (),
    in_channels: int = 3,
    pretrained: bool = False,
    checkpoint: str = "",
) -> nn.Module:
    """A network of timm that gives its features, for images of any size.

    Args:
        name: timm's, with or without the name of its weights after a point.
        out_indices: which of its outputs; empty is all.
        in_channels: of the images.
        pretrained: whether timm fetches its weights.
        checkpoint: a file of such weights, in their place.
    """
    timm = import_timm("MODEL.TIMM")
    options: dict[str, Any] = {"features_only": True, "in_chans": in_channels}
    if out_indices:
        options["out_indices"] = tuple(out_indices)
    if checkpoint:
        options["pretrained_cfg_overlay"] = {"file": checkpoint}
    options["pretrained"] = pretrained or bool(checkpoint)
    for any_size in _ANY_SIZE:
        try:
            return timm.create_model(name, **options, **any_size)
        except TypeError as error:  # raised before any weights are fetched
            if "unexpected keyword argument" not in str(error):
                raise
    return timm.create_model(name, **options)


def check_timm(cfg: CfgNode) -> None:
    """Raise unless the network that MODEL.TIMM names can be made.

    Raises:
        MissingPackageError: timm is not installed.
        ConfigError: it has no network of that name.
        InputError: there is no name, no such file, or two kinds of weights.
    """
    node = cfg.MODEL.TIMM
    timm = import_timm("MODEL.TIMM")
    if not node.NAME:
        raise InputError(
            "MODEL.TIMM.NAME is '', the name of a network of timm; set it to one, such as "
            "convnext_tiny or mobilenetv3_large_100"
        )
    if ":" not in node.NAME and not timm.is_model(node.NAME):  # those of a hub are anyone's
        network = node.NAME.partition(".")[0]
        raise ConfigError(
            f"MODEL.TIMM.NAME is '{node.NAME}', which this version of timm does not have."
            f"{did_you_mean(network, timm.list_models())}"
        )
    if node.PRETRAINED and node.CHECKPOINT:
        raise InputError(
            f"MODEL.TIMM.PRETRAINED is True and MODEL.TIMM.CHECKPOINT is '{node.CHECKPOINT}', "
            "which are two kinds of weights; set one of them"
        )
    if node.CHECKPOINT and not os.path.isfile(node.CHECKPOINT):
        raise InputError(
            f"MODEL.TIMM.CHECKPOINT is '{node.CHECKPOINT}', which is no file; set it to one of "
            "timm's weights for this network, .safetensors or .pth"
        )


@register_once(BACKBONE_REGISTRY)
@reads(*TIMM_KEYS, check_config=check_timm)
def build_timm_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> TimmBackbone:
    """The network that MODEL.TIMM.NAME names, for MODEL.FPN.BOTTOM_UP of a pyramid.

    MODEL.TIMM.PRETRAINED fetches timm's weights and CHECKPOINT reads them from a file, unless there
    are MODEL.WEIGHTS, which would replace them. OUT_INDICES are timm's; [] is all outputs.

    Args:
        cfg: the config.
        input_shape: channels of the images.

    Raises:
        MissingPackageError, ConfigError, InputError: see :func:`check_timm`.
    """
    check_timm(cfg)
    node = cfg.MODEL.TIMM
    replaced = cfg.MODEL.WEIGHTS != ""
    network = create_network(
        node.NAME,
        node.OUT_INDICES,
        input_shape.channels,
        node.PRETRAINED and not replaced,
        "" if replaced else node.CHECKPOINT,
    )
    return TimmBackbone(network, node.NAME)


@register_once(BACKBONE_REGISTRY)
@reads(*TIMM_KEYS, check_config=check_timm)
def build_timm_fpn_p6p7(cfg: CfgNode, input_shape: ShapeSpec) -> FPN:
    """A pyramid up to P7 over the network that MODEL.TIMM.NAME names, P6 from C5.

    For P6 from P5, put :func:`build_timm_backbone` under
    :func:`~retinanet_ext.modeling.build_fpn_backbone_p6p7`.

    Args:
        cfg: the config, with MODEL.FPN.IN_FEATURES such as ``["c3", "c4", "c5"]``.
        input_shape: channels of the images.

    Raises:
        MissingPackageError, ConfigError, InputError: see :func:`check_timm`; or the network lacks
            one of FPN.IN_FEATURES.
    """
    return build_pyramid(cfg, build_timm_backbone(cfg, input_shape), cfg.MODEL.TIMM.NAME)
