"""Stop on a config that cannot do what its author meant, before anything is built."""

from __future__ import annotations

from typing import Any

from detectron2.config import CfgNode
from detectron2.modeling import (
    ANCHOR_GENERATOR_REGISTRY,
    BACKBONE_REGISTRY,
    META_ARCH_REGISTRY,
)

from ..data.augment import check_augmentations
from ..errors import did_you_mean
from ..losses.kernels.dispatch import KERNELS
from ..modeling.anchors import RetinaNetAnchorGenerator, octave_sizes
from ..modeling.assigners.atss import check_atss_topk
from ..modeling.assigners.ignore_regions import check_ignore_iof_thresh
from ..modeling.assigners.iou import check_iou_bands
from ..modeling.assigners.multi_label import check_multi_label_thresh
from ..modeling.backbones.build import check_fpn_arguments
from ..modeling.criteria.box import BOX_LOSS_ALIASES, build_box_loss
from ..modeling.criteria.normalizer import build_loss_normalizer
from ..modeling.criteria.quality_branch import check_quality_branch
from ..modeling.heads.towers import check_norm_per_level
from ..modeling.postprocess.decode import check_nms_arguments
from ..modeling.speedups.settings import Speedups
from ..registry import ASSIGNER_REGISTRY, BOX_LOSS_REGISTRY, CLS_LOSS_REGISTRY, DENSE_HEAD_REGISTRY
from ..structures import RETINANET_ARCHITECTURES
from .defaults import get_cfg
from .load import flatten
from .output_rules import check_evaluation
from .solver_rules import check_determinism, check_schedule
from .step_rules import check_step
from .unread_keys import check_added_keys, check_component_keys, check_two_stage_keys
from .writer_rules import check_writers

__all__ = ["validate_cfg"]

ON_ERROR = ("fail", "skip")

# What MODEL.RETINANET.FREEZE can name with the heads of this package; with those of others, the
# trainer looks at the model.
_PREDICTORS = ("cls_score", "bbox_pred", "quality_pred")
_FREEZABLE = {
    "RetinaNetHead": ("backbone", "fpn", "head", "cls_subnet", "bbox_subnet", *_PREDICTORS),
    "SharedTowerHead": ("backbone", "fpn", "head", "subnet", *_PREDICTORS),
}


def validate_cfg(cfg: CfgNode, reference: CfgNode | None = None) -> None:
    """Raise on settings that would be ignored or cannot work.

    Args:
        cfg: the config to check; not changed.
        reference: the config with default values that ``cfg`` was made from. Default: this
            package's :func:`get_cfg`. Give your own if your project adds further keys.

    Raises:
        KeyError: unknown keys or component names, with the nearest real one.
        ValueError: values that are ignored or impossible, with the key that is meant.
    """
    if reference is None:
        reference = get_cfg()
    defaults = dict(flatten(reference))
    values = dict(flatten(cfg))
    _check_unknown_keys(cfg, values, defaults)
    _check_datasets(cfg)
    check_augmentations(cfg)
    _check_component_names(cfg)
    _check_pyramid(cfg, defaults)
    if cfg.MODEL.META_ARCHITECTURE in RETINANET_ARCHITECTURES:
        check_two_stage_keys(values, defaults)
        _check_retinanet(cfg)
        _check_anchor_keys(cfg, defaults)
    if cfg.MODEL.META_ARCHITECTURE == "RetinaNet":
        check_added_keys(values, defaults)
    if cfg.MODEL.META_ARCHITECTURE == "RetinaNetExt":
        check_component_keys(cfg, defaults)
    check_schedule(cfg, values, defaults)
    check_evaluation(cfg, values, defaults)
    check_writers(cfg)
    check_step(cfg, values, defaults)
    check_determinism(cfg)


def _check_unknown_keys(cfg: CfgNode, values: dict[str, Any], defaults: dict[str, Any]) -> None:
    unknown = [key for key in values if key not in defaults]
    if not unknown:
        return
    by_last_part = {key.rsplit(".", 1)[-1]: key for key in defaults}
    lines = []
    for key in unknown:
        hint = did_you_mean(key, defaults)
        if not hint and (full := by_last_part.get(key.rsplit(".", 1)[-1])):
            hint = f" Did you mean '{full}'?"
        elif "." not in key and key in by_last_part:
            hint = f" Did you mean '{by_last_part[key]}'?"
        lines.append(f"config key '{key}' does not exist, so it would be ignored.{hint}")
    raise KeyError(" ".join(lines))


def _check_datasets(cfg: CfgNode) -> None:
    for key in ("TRAIN", "TEST"):
        value = cfg.DATASETS[key]
        if isinstance(value, str) or not all(isinstance(name, str) for name in value):
            raise ValueError(
                f"DATASETS.{key} must be a tuple of names, got {value!r}; a tuple of one needs a "
                f'comma: ("{value}",)'
            )
    if cfg.DATALOADER.ON_ERROR not in ON_ERROR:
        raise ValueError(
            f"DATALOADER.ON_ERROR is '{cfg.DATALOADER.ON_ERROR}'; set it to one of "
            f"{', '.join(ON_ERROR)}"
        )
    if not 0 <= cfg.DATASETS.VAL_FRACTION < 1:
        raise ValueError(
            f"DATASETS.VAL_FRACTION must be in [0, 1), got {cfg.DATASETS.VAL_FRACTION}: the share "
            "of the images to validate on"
        )


def _check_component_names(cfg: CfgNode) -> None:
    for key, name, registry in (
        ("MODEL.META_ARCHITECTURE", cfg.MODEL.META_ARCHITECTURE, META_ARCH_REGISTRY),
        ("MODEL.BACKBONE.NAME", cfg.MODEL.BACKBONE.NAME, BACKBONE_REGISTRY),
        (
            "MODEL.ANCHOR_GENERATOR.NAME",
            cfg.MODEL.ANCHOR_GENERATOR.NAME,
            ANCHOR_GENERATOR_REGISTRY,
        ),
    ):
        known = sorted(dict(registry))
        if name not in known:
            raise KeyError(
                f"{key} is '{name}', which is not registered.{did_you_mean(name, known)} Known: "
                f"{', '.join(known)}. If it is your own, import the module that registers it."
            )


def _check_pyramid(cfg: CfgNode, defaults: dict[str, Any]) -> None:
    node = cfg.MODEL.FPN
    if cfg.MODEL.BACKBONE.NAME == "build_fpn_backbone_p6p7":
        check_fpn_arguments(node.BOTTOM_UP, node.TOP_BLOCK_IN)
        return
    for key in ("BOTTOM_UP", "TOP_BLOCK_IN"):
        if node[key] != defaults[f"MODEL.FPN.{key}"]:
            raise ValueError(
                f"MODEL.FPN.{key} is '{node[key]}', but {cfg.MODEL.BACKBONE.NAME} does not read "
                "it; set MODEL.BACKBONE.NAME to build_fpn_backbone_p6p7"
            )


def _check_retinanet(cfg: CfgNode) -> None:
    node = cfg.MODEL.RETINANET
    if node.NUM_CLASSES < 1:
        raise ValueError(
            f"MODEL.RETINANET.NUM_CLASSES is {node.NUM_CLASSES}; set it to the number of object "
            "classes, without background"
        )
    if node.NUM_CONVS < 0:
        raise ValueError(f"MODEL.RETINANET.NUM_CONVS must be at least 0, got {node.NUM_CONVS}")
    check_iou_bands(node.IOU_THRESHOLDS, node.IOU_LABELS)
    if cfg.MODEL.META_ARCHITECTURE != "RetinaNetExt":
        return
    check_atss_topk(node.ATSS_TOPK)
    check_multi_label_thresh(node.MULTI_LABEL_IOU_THRESH)
    check_ignore_iof_thresh(node.IGNORE_IOF_THRESH)
    if node.HEAD_WIDTH < 0:
        raise ValueError(
            f"MODEL.RETINANET.HEAD_WIDTH is {node.HEAD_WIDTH}; set it to a number of channels, or "
            "to 0 for as many as the features have"
        )
    _check_freeze(node)
    check_norm_per_level(node.NORM_PER_LEVEL)
    check_quality_branch(node.QUALITY_BRANCH)
    if node.NORM_PER_LEVEL != "auto" and not node.NORM:
        raise ValueError(
            f"MODEL.RETINANET.NORM_PER_LEVEL is '{node.NORM_PER_LEVEL}', but the head has no "
            "norms; set MODEL.RETINANET.NORM"
        )
    DENSE_HEAD_REGISTRY.get(node.HEAD)
    ASSIGNER_REGISTRY.get(node.ASSIGNER)
    if node.LOSS_KERNEL not in KERNELS:
        raise ValueError(
            f"MODEL.RETINANET.LOSS_KERNEL is '{node.LOSS_KERNEL}'; set it to one of "
            f"{', '.join(KERNELS)}"
        )
    _check_cls_loss(cfg)
    Speedups.from_cfg(cfg)
    box_loss = node.BBOX_REG_LOSS_TYPE
    if box_loss not in BOX_LOSS_ALIASES and box_loss not in BOX_LOSS_REGISTRY:
        known = [*BOX_LOSS_ALIASES, *sorted(dict(BOX_LOSS_REGISTRY))]
        raise KeyError(
            f"MODEL.RETINANET.BBOX_REG_LOSS_TYPE is '{box_loss}', which is not a box loss."
            f"{did_you_mean(box_loss, known)} Known: {', '.join(known)}."
        )
    build_box_loss(cfg)
    build_loss_normalizer(cfg)
    check_nms_arguments(node.NMS_KIND, node.SOFT_NMS_METHOD, node.SOFT_NMS_SIGMA)


def _check_freeze(node: CfgNode) -> None:
    parts = _FREEZABLE.get(node.HEAD)
    for name in node.FREEZE:
        if parts is not None and name not in parts:
            raise KeyError(
                f"MODEL.RETINANET.FREEZE holds '{name}', which is no part of a model with the head "
                f"{node.HEAD}.{did_you_mean(str(name), parts)} Known: {', '.join(parts)}."
            )


def _check_cls_loss(cfg: CfgNode) -> None:
    node = cfg.MODEL.RETINANET
    cls_loss = CLS_LOSS_REGISTRY.get(node.CLS_LOSS)
    try:
        cls_loss(cfg)
    except ValueError as error:
        raise ValueError(f"MODEL.RETINANET.CLS_LOSS is '{node.CLS_LOSS}', and {error}") from error
    if node.MULTI_LABEL_IOU_THRESH < 1 and not getattr(cls_loss, "multi_label", False):
        able = sorted(name for name, c in CLS_LOSS_REGISTRY if getattr(c, "multi_label", False))
        raise ValueError(
            f"MODEL.RETINANET.MULTI_LABEL_IOU_THRESH is {node.MULTI_LABEL_IOU_THRESH}, but the "
            f"loss {node.CLS_LOSS} knows one class per anchor; set it to 1.0, or CLS_LOSS to one "
            f"of {', '.join(able)}"
        )


def _check_anchor_keys(cfg: CfgNode, defaults: dict[str, Any]) -> None:
    node = cfg.MODEL.ANCHOR_GENERATOR
    entry = ANCHOR_GENERATOR_REGISTRY.get(node.NAME)
    # By name, since a reload of the module makes another class.
    kinds = [kind.__name__ for kind in getattr(entry, "__mro__", ())]
    if RetinaNetAnchorGenerator.__name__ in kinds:
        scales = node.SCALES_OF_LEVELS or node.SCALES_PER_OCTAVE
        sizes = octave_sizes(node.OCTAVE_BASE_SIZES, scales)
        if node.SIZES not in (defaults["MODEL.ANCHOR_GENERATOR.SIZES"], sizes):
            raise ValueError(
                f"MODEL.ANCHOR_GENERATOR.SIZES is {node.SIZES}, but {node.NAME} reads "
                f"OCTAVE_BASE_SIZES {node.OCTAVE_BASE_SIZES} and SCALES_PER_OCTAVE {scales} "
                "instead; set those, or NAME to DefaultAnchorGenerator"
            )
        return
    for key in ("OCTAVE_BASE_SIZES", "SCALES_PER_OCTAVE", "SCALES_OF_LEVELS"):
        if node[key] != defaults[f"MODEL.ANCHOR_GENERATOR.{key}"]:
            raise ValueError(
                f"MODEL.ANCHOR_GENERATOR.{key} is {node[key]}, but {node.NAME} does not read it; "
                "set MODEL.ANCHOR_GENERATOR.NAME to RetinaNetAnchorGenerator"
            )
