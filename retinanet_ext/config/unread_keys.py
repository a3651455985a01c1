"""Config keys that are set, but that nothing in this config reads."""

from __future__ import annotations

from typing import Any

from detectron2.config import CfgNode
from detectron2.config import get_cfg as get_detectron2_cfg

from ..registry import ASSIGNER_REGISTRY, CLS_LOSS_REGISTRY

# Sections that only two-stage models read, and where RetinaNet has the same thing.
_TWO_STAGE_SECTIONS = (
    "MODEL.ROI_HEADS",
    "MODEL.ROI_BOX_HEAD",
    "MODEL.ROI_BOX_CASCADE_HEAD",
    "MODEL.ROI_MASK_HEAD",
    "MODEL.ROI_KEYPOINT_HEAD",
    "MODEL.RPN",
    "MODEL.PROPOSAL_GENERATOR",
)
_RETINANET_COUNTERPART = {
    "MODEL.ROI_HEADS.NUM_CLASSES": "MODEL.RETINANET.NUM_CLASSES",
    "MODEL.ROI_HEADS.SCORE_THRESH_TEST": "MODEL.RETINANET.SCORE_THRESH_TEST",
    "MODEL.ROI_HEADS.NMS_THRESH_TEST": "MODEL.RETINANET.NMS_THRESH_TEST",
    "MODEL.ROI_HEADS.IOU_THRESHOLDS": "MODEL.RETINANET.IOU_THRESHOLDS",
    "MODEL.ROI_HEADS.IOU_LABELS": "MODEL.RETINANET.IOU_LABELS",
    "MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_TYPE": "MODEL.RETINANET.BBOX_REG_LOSS_TYPE",
    "MODEL.ROI_BOX_HEAD.SMOOTH_L1_BETA": "MODEL.RETINANET.SMOOTH_L1_LOSS_BETA",
    "MODEL.ROI_BOX_HEAD.NORM": "MODEL.RETINANET.NORM",
    "MODEL.RPN.IN_FEATURES": "MODEL.RETINANET.IN_FEATURES",
    "MODEL.RPN.IOU_THRESHOLDS": "MODEL.RETINANET.IOU_THRESHOLDS",
    "MODEL.RPN.NMS_THRESH": "MODEL.RETINANET.NMS_THRESH_TEST",
    "MODEL.RPN.PRE_NMS_TOPK_TEST": "MODEL.RETINANET.TOPK_CANDIDATES_TEST",
    "MODEL.RPN.POST_NMS_TOPK_TEST": "TEST.DETECTIONS_PER_IMAGE",
    "MODEL.RPN.BBOX_REG_LOSS_TYPE": "MODEL.RETINANET.BBOX_REG_LOSS_TYPE",
}

# Keys of MODEL.RETINANET that one choice alone reads: chooser -> choice -> keys.
_READ_BY: dict[str, dict[str, tuple[str, ...]]] = {
    "CLS_LOSS": {
        "FocalLossStar": ("FOCAL_STAR_GAMMA", "FOCAL_STAR_BETA", "FOCAL_STAR_ALPHA"),
        "OHEM": (
            "OHEM_MODE",
            "OHEM_BATCH",
            "OHEM_NMS_THRESH",
            "OHEM_NEG_POS_RATIO",
            "OHEM_MIN_NEG",
        ),
        "ClassBalancedFocal": (
            "CLASS_BALANCE",
            "CLASS_ALPHA",
            "CLASS_COUNTS",
            "CLASS_BALANCE_BETA",
        ),
        "QualityFocalLoss": ("QUALITY_FOCAL_BETA",),
        "VarifocalLoss": ("VARIFOCAL_ALPHA", "VARIFOCAL_GAMMA"),
    },
    "ASSIGNER": {
        "IoUAssigner": ("ALLOW_LOW_QUALITY_MATCHES",),
        "ATSSAssigner": ("ATSS_TOPK",),
    },
    "NMS_KIND": {"soft": ("SOFT_NMS_METHOD", "SOFT_NMS_SIGMA")},
    "LOSS_NORMALIZER": {"constant": ("LOSS_NORMALIZER_VALUE",)},
}
_REGISTRIES = {"CLS_LOSS": CLS_LOSS_REGISTRY, "ASSIGNER": ASSIGNER_REGISTRY}

# Added by this package and read by its trainer, whatever the model is.
_TRAINERS_KEYS = ("MODEL.RETINANET.FREEZE",)


def check_two_stage_keys(values: dict[str, Any], defaults: dict[str, Any]) -> None:
    """Raise ValueError for a key of two-stage models that was changed.

    Args:
        values, defaults: flat, by full name.
    """
    for key, value in values.items():
        if not key.startswith(_TWO_STAGE_SECTIONS) or not _differ(value, defaults[key]):
            continue
        meant = _RETINANET_COUNTERPART.get(key)
        hint = f"; set {meant} instead" if meant else "; remove it"
        raise ValueError(f"{key} is {value!r}, but RetinaNet does not read that section{hint}")


def check_added_keys(values: dict[str, Any], defaults: dict[str, Any]) -> None:
    """Raise ValueError for a changed key of this package that Detectron2's RetinaNet cannot know.

    Args:
        values, defaults: flat, by full name.
    """
    known = get_detectron2_cfg()
    for key, value in values.items():
        section, _, last = key.rpartition(".")
        added = section == "MODEL.SPEEDUPS" or (
            section == "MODEL.RETINANET" and last not in known.MODEL.RETINANET
        )
        if added and key not in _TRAINERS_KEYS and _differ(value, defaults[key]):
            raise ValueError(
                f"{key} is {value!r}, but Detectron2's RetinaNet does not read it; set "
                "MODEL.META_ARCHITECTURE to RetinaNetExt"
            )


def check_component_keys(cfg: CfgNode, defaults: dict[str, Any]) -> None:
    """Raise ValueError for a changed key that belongs to a component which was not chosen.

    Components from outside of this package may read any key.

    Args:
        cfg: the config.
        defaults: flat, by full name.
    """
    node = cfg.MODEL.RETINANET
    for chooser, choices in _READ_BY.items():
        for choice, keys in choices.items():
            if _reads_keys_of(choice, chooser, node[chooser]):
                continue
            for key in keys:
                if _differ(node[key], defaults[f"MODEL.RETINANET.{key}"]):
                    raise ValueError(
                        f"MODEL.RETINANET.{key} is {node[key]!r}, but {chooser} is "
                        f"'{node[chooser]}', which does not read it; set MODEL.RETINANET.{chooser} "
                        f"to {choice}, or remove {key}"
                    )


def _reads_keys_of(choice: str, chooser: str, chosen: str) -> bool:
    if chosen == choice:
        return True
    registry = _REGISTRIES.get(chooser)
    return registry is not None and not registry.get(chosen).__module__.startswith("retinanet_ext.")


def _differ(value: Any, default: Any) -> bool:
    return _as_lists(value) != _as_lists(default)


def _as_lists(value: Any) -> Any:
    # yaml knows no tuples, so a config that was saved and loaded has lists in their place.
    return [_as_lists(v) for v in value] if isinstance(value, (list, tuple)) else value
