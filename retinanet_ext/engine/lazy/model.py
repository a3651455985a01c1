"""The detector of a config as LazyCalls, each with the arguments that the config means."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.config import LazyCall as L
from detectron2.layers import ShapeSpec
from detectron2.modeling import ANCHOR_GENERATOR_REGISTRY, build_backbone
from detectron2.modeling.backbone import FPN, Backbone, BasicStem, ResNet
from detectron2.modeling.backbone.fpn import LastLevelP6P7
from detectron2.modeling.box_regression import Box2BoxTransform, Box2BoxTransformLinear

from ...config import get_cfg
from ...errors import InputError
from ...modeling import DenseDecoder, LossNormalizer, RetinaNetExt, WeightedBoxLoss
from ...modeling.speedups.settings import Speedups
from ...registry import (
    ASSIGNER_REGISTRY,
    BOX_LOSS_REGISTRY,
    CLS_LOSS_REGISTRY,
    DENSE_HEAD_REGISTRY,
)

BACKBONE_KEYS = (
    "MODEL.BACKBONE",
    "MODEL.FBNET_V2",
    "MODEL.FPN",
    "MODEL.PIXEL_MEAN",
    "MODEL.REGNET",
    "MODEL.RESNETS",
)
MODEL_KEYS = (
    *BACKBONE_KEYS,
    "INPUT.FORMAT",
    "MODEL.ANCHOR_GENERATOR",
    "MODEL.META_ARCHITECTURE",
    "MODEL.PIXEL_STD",
    "MODEL.RETINANET",
    "MODEL.SPEEDUPS",
    "TEST.DETECTIONS_PER_IMAGE",
    "VIS_PERIOD",
)
NUM_CLASSES = "${..num_classes}"


def lazy_model(cfg: CfgNode) -> Any:
    """The detector of a valid config.

    Raises:
        InputError: it is another detector, or a part cannot be said as a LazyCall.
    """
    if cfg.MODEL.META_ARCHITECTURE != "RetinaNetExt":
        raise InputError(
            f"MODEL.META_ARCHITECTURE is '{cfg.MODEL.META_ARCHITECTURE}', but a LazyConfig is made "
            "of RetinaNetExt only; Detectron2 has python configs of its own"
        )
    node = cfg.MODEL.RETINANET
    with torch.device("meta"):  # the settings of a whole model, without its numbers
        parts = RetinaNetExt.from_config(cfg)
    shapes = [parts["backbone"].output_shape()[name] for name in node.IN_FEATURES]
    counts = parts["anchor_generator"].num_anchors
    head_args = (shapes, counts[0] if len(set(counts)) == 1 else counts)
    box_loss = _call(BOX_LOSS_REGISTRY.get(node.BBOX_REG_LOSS_TYPE), cfg)
    if node.BOX_LOSS_WEIGHT != 1:
        box_loss = L(WeightedBoxLoss)(box_loss=box_loss, weight=node.BOX_LOSS_WEIGHT)
    normalizer = parts["loss_normalizer"]
    made = {
        "backbone": _backbone(cfg, parts["backbone"]),
        "head": _call(DENSE_HEAD_REGISTRY.get(node.HEAD), cfg, *head_args),
        "anchor_generator": _call(
            ANCHOR_GENERATOR_REGISTRY.get(cfg.MODEL.ANCHOR_GENERATOR.NAME), cfg, shapes
        ),
        "assigner": _call(ASSIGNER_REGISTRY.get(node.ASSIGNER), cfg),
        "cls_loss": _call(CLS_LOSS_REGISTRY.get(node.CLS_LOSS), cfg),
        "box_loss": box_loss,
        "decoder": L(DenseDecoder)(**_arguments(vars(parts["decoder"]))),
        "loss_normalizer": L(LossNormalizer)(kind=normalizer.kind, value=normalizer.value),
        "speedups": L(Speedups)(**asdict(parts["speedups"])),
    }
    plain = {name: value for name, value in parts.items() if name not in made}
    return L(RetinaNetExt)(**made, **{name: _plain(value) for name, value in plain.items()})


def _call(entry: Any, cfg: CfgNode, *args: Any) -> Any:
    """A LazyCall of a registry's entry, with what it takes from the config."""
    if not hasattr(entry, "from_config"):
        raise InputError(
            f"{entry.__name__} has no from_config, which says what its arguments are; write one, "
            "or set this part in the LazyConfig yourself"
        )
    return L(entry)(**_arguments(entry.from_config(cfg, *args)))


def _arguments(found: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of a LazyCall; the number of classes is that of the model."""
    plain = {name: _plain(value) for name, value in found.items()}
    return {**plain, "num_classes": NUM_CLASSES} if "num_classes" in plain else plain


def _plain(value: Any) -> Any:
    """What a LazyConfig can hold in the place of ``value``."""
    if isinstance(value, Box2BoxTransform):
        return L(Box2BoxTransform)(weights=list(value.weights))
    if isinstance(value, Box2BoxTransformLinear):
        return L(Box2BoxTransformLinear)(normalize_by_size=value.normalize_by_size)
    if isinstance(value, Sequence) and not isinstance(value, str | ShapeSpec):
        return [_plain(x) for x in value]
    return value


def _backbone(cfg: CfgNode, built: Backbone) -> Any:
    """A plain ResNet with its pyramid as in Detectron2's python configs, else by the config."""
    node, fpn = cfg.MODEL.RESNETS, cfg.MODEL.FPN
    deep = node.DEPTH >= 50
    as_usual = {
        "STEM_OUT_CHANNELS": 64,
        "RES2_OUT_CHANNELS": 256 if deep else 64,
        "NUM_GROUPS": 1,
        "WIDTH_PER_GROUP": 64,
        "RES5_DILATION": 1,
        "DEFORM_ON_PER_STAGE": [False] * 4,
    }
    is_plain = all(node[key] == value for key, value in as_usual.items())
    if cfg.MODEL.BACKBONE.NAME != "build_retinanet_resnet_fpn_backbone" or not is_plain:
        return L(backbone_of)(settings=_backbone_settings(cfg))
    blocks = {"stride_in_1x1": node.STRIDE_IN_1X1} if deep else {}
    return L(FPN)(
        bottom_up=L(ResNet)(
            stem=L(BasicStem)(
                in_channels=len(cfg.MODEL.PIXEL_MEAN), out_channels=64, norm=node.NORM
            ),
            stages=L(ResNet.make_default_stages)(depth=node.DEPTH, norm=node.NORM, **blocks),
            out_features=list(node.OUT_FEATURES),
            freeze_at=cfg.MODEL.BACKBONE.FREEZE_AT,
        ),
        in_features=list(fpn.IN_FEATURES),
        out_channels=fpn.OUT_CHANNELS,
        norm=fpn.NORM,
        fuse_type=fpn.FUSE_TYPE,
        top_block=L(LastLevelP6P7)(
            in_channels=built.bottom_up.output_shape()["res5"].channels,
            out_channels="${..out_channels}",
        ),
    )


def _backbone_settings(cfg: CfgNode) -> dict[str, Any]:
    """The sections that backbones read, as plain values by their full keys."""
    sections = [name.partition(".")[2] for name in BACKBONE_KEYS]
    found = {name: cfg.MODEL[name] for name in sections if name in cfg.MODEL}
    return {name: _as_dict(value) for name, value in found.items()}


def _as_dict(value: Any) -> Any:
    if isinstance(value, CfgNode):
        return {name: _as_dict(x) for name, x in value.items()}
    return _plain(value)


def backbone_of(settings: Mapping[str, Any]) -> Backbone:
    """Build a backbone from sections of ``MODEL``.

    Args:
        settings: such as ``{"BACKBONE": {"NAME": "build_regnet_backbone"}, "REGNET": {...}}``.
    """
    cfg = get_cfg()
    to_plain = getattr(settings, "_get_node", None)
    if to_plain is not None:  # what instantiate leaves of nested settings
        from omegaconf import OmegaConf

        settings = OmegaConf.to_container(settings, resolve=True)  # type: ignore[assignment]
    cfg.merge_from_other_cfg(CfgNode({"MODEL": dict(settings)}))
    return build_backbone(cfg)
