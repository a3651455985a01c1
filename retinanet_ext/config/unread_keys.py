"""Config keys that are set, but that nothing in this config reads."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from detectron2.config import get_cfg as get_detectron2_cfg
from detectron2.modeling import ANCHOR_GENERATOR_REGISTRY, BACKBONE_REGISTRY, META_ARCH_REGISTRY
from fvcore.common.registry import Registry

from ..errors import InputError, listed
from ..registry import COMPONENT_REGISTRIES, ComponentRegistry
from .keys import KEYS, NOT_ADDED, differ

DETECTRON2_CHOOSERS: dict[str, Registry] = {
    "MODEL.FPN.BOTTOM_UP": BACKBONE_REGISTRY,  # for one of its entries, see there
    "MODEL.BACKBONE.NAME": BACKBONE_REGISTRY,
    "MODEL.ANCHOR_GENERATOR.NAME": ANCHOR_GENERATOR_REGISTRY,
}
"""Keys that choose an entry of a registry of Detectron2's; the likeliest to be meant first."""

# Sections that only two-stage and panoptic models read, and where RetinaNet has the same thing.
_TWO_STAGE_SECTIONS = (
    "MODEL.ROI_HEADS",
    "MODEL.ROI_BOX_HEAD",
    "MODEL.ROI_BOX_CASCADE_HEAD",
    "MODEL.ROI_MASK_HEAD",
    "MODEL.ROI_KEYPOINT_HEAD",
    "MODEL.RPN",
    "MODEL.PROPOSAL_GENERATOR",
    "MODEL.SEM_SEG_HEAD",
    "MODEL.PANOPTIC_FPN",
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

# Keys, or sections, of what is not done with RetinaNet, and why.
_OTHER_TASKS = {
    "MODEL.MASK_ON": "RetinaNet predicts boxes, no masks",
    "INPUT.MASK_FORMAT": "RetinaNet predicts boxes, no masks",
    "MODEL.KEYPOINT_ON": "RetinaNet predicts boxes, no keypoints",
    "TEST.KEYPOINT_OKS_SIGMAS": "RetinaNet predicts boxes, no keypoints",
    "MODEL.LOAD_PROPOSALS": "RetinaNet takes no proposals",
    "DATASETS.PROPOSAL_FILES_TRAIN": "RetinaNet takes no proposals",
    "DATASETS.PROPOSAL_FILES_TEST": "RetinaNet takes no proposals",
    "DATASETS.PRECOMPUTED_PROPOSAL_TOPK_TRAIN": "RetinaNet takes no proposals",
    "DATASETS.PRECOMPUTED_PROPOSAL_TOPK_TEST": "RetinaNet takes no proposals",
    "MODEL.ANCHOR_GENERATOR.ANGLES": "RetinaNet's boxes are not rotated",
    "GLOBAL.HACK": "no code of Detectron2 or this package reads it",
}

# Added by this package and read by its trainer, whatever the model is.
_TRAINERS_KEYS = ("MODEL.RETINANET.FREEZE",)


def choosers() -> dict[str, Registry]:
    """Each key that chooses a component, and the registry that it chooses from."""
    own = {registry.config_key: registry for registry in COMPONENT_REGISTRIES}
    return {**DETECTRON2_CHOOSERS, **own}


def check_two_stage_keys(values: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
    """Raise InputError for a key of two-stage models that was changed.

    Args:
        values, defaults: flat, by full name.
    """
    for key, value in values.items():
        if not key.startswith(_TWO_STAGE_SECTIONS) or not differ(value, defaults[key]):
            continue
        meant = _RETINANET_COUNTERPART.get(key)
        hint = f"; set {meant} instead" if meant else "; remove it"
        if meant and differ(values[meant], defaults[meant]):
            hint = f"; remove it, {meant} is what is read, and is {values[meant]!r}"
        raise InputError(f"{key} is {value!r}, but RetinaNet does not read that section{hint}")


def check_keys_of_other_tasks(values: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
    """Raise InputError for a changed key of Detectron2's that is about something else than boxes.

    Args:
        values, defaults: flat, by full name.
    """
    for start, why in _OTHER_TASKS.items():
        for key, value in values.items():
            if (key == start or (start[-1] == "." and key.startswith(start))) and differ(
                value, defaults[key]
            ):
                raise InputError(
                    f"{key} is {value!r}, but {why}; set it to its default, {defaults[key]!r}"
                )


def check_added_keys(
    values: Mapping[str, Any], defaults: Mapping[str, Any], sections: Collection[str]
) -> None:
    """Raise InputError for a changed key of this package that Detectron2's RetinaNet cannot know.

    Args:
        values, defaults: flat, by full name.
        sections: of the config that only this package's detector reads such keys of.
    """
    known = get_detectron2_cfg()
    for key, value in values.items():
        section, _, last = key.rpartition(".")
        added = section in sections and last not in known.MODEL.get(section[6:], {})
        if added and key not in _TRAINERS_KEYS and differ(value, defaults[key]):
            raise InputError(
                f"{key} is {value!r}, but Detectron2's RetinaNet does not read it; set "
                "MODEL.META_ARCHITECTURE to RetinaNetExt"
            )


def check_sections_of_others(
    values: Mapping[str, Any],
    defaults: Mapping[str, Any],
    sections: Collection[str],
    architecture: str,
) -> None:
    """Raise InputError for a changed key in a section that the architecture does not read.

    Args:
        values, defaults: flat, by full name.
        sections: that it does not read.
        architecture: its name.
    """
    meant = {theirs: own for own, theirs in reversed(_RETINANET_COUNTERPART.items())}
    for key, value in values.items():
        section = key.rpartition(".")[0]
        if section not in sections or key in _TRAINERS_KEYS or not differ(value, defaults[key]):
            continue
        hint = f"set {meant[key]} instead" if key in meant else "remove it"
        if section == "MODEL.RETINANET":
            hint += ", or set MODEL.PROPOSAL_GENERATOR.NAME to DenseRPN, which reads it"
        elif readers := [
            x
            for x, entry in sorted(META_ARCH_REGISTRY)
            if section in getattr(entry, "config_sections", ())
        ]:
            hint += f", or set MODEL.META_ARCHITECTURE to {listed(readers)}"
        raise InputError(f"{key} is {value!r}, but {architecture} does not read {section}; {hint}")


def check_component_keys(
    values: Mapping[str, Any], defaults: Mapping[str, Any], unread_sections: Collection[str]
) -> list[str]:
    """Raise for a changed key that belongs to components of which none was chosen.

    Which keys those are, the components declare: see :mod:`retinanet_ext.registry`.

    Args:
        values, defaults: flat, by full name.
        unread_sections: of the config, which the model does not read at all: not looked at.

    Returns:
        A warning for each such key of Detectron2's.

    Raises:
        InputError: for such a key of this package or of the user's.
    """
    warnings = []
    for key, owners in _owners(values).items():
        section = key.rpartition(".")[0]
        if key not in values or section in unread_sections:
            continue
        if not differ(values[key], defaults.get(key)) or _is_read(key, owners, values):
            continue
        chooser, names = next(iter(owners.items()))
        short = chooser.removeprefix(f"{section}.")
        message = (
            f"{key} is {values[key]!r}, but {short} is '{values[chooser]}', which does not read "
            f"it; set {chooser} to {listed(names)}, or remove {key.rpartition('.')[2]}"
        )
        known = KEYS.get(key)
        if known is None or known.default is NOT_ADDED:
            warnings.append(message)
        else:
            raise InputError(message)
    return warnings


def declared_keys(entry: Any, chooser: str) -> set[str] | None:
    """Full names of the keys that an entry says it reads; None where it does not say.

    None of them where it reads ``chooser`` itself: that one chooses a part of it.
    """
    keys = getattr(entry, "config_keys", None)
    if keys is None:
        return None
    section = chooser.rpartition(".")[0]
    names = {key if "." in key else f"{section}.{key}" for key in keys}
    return set() if chooser in names else names


def _owners(values: Mapping[str, Any]) -> dict[str, dict[str, list[str]]]:
    """Key -> chooser -> names of entries that read the key."""
    found: dict[str, dict[str, list[str]]] = {}
    for chooser, registry in choosers().items():
        if chooser not in values:
            continue
        for name, entry in sorted(registry):
            for key in sorted(declared_keys(entry, chooser) or ()):
                found.setdefault(key, {}).setdefault(chooser, []).append(name)
    return found


def _is_read(key: str, owners: Mapping[str, Any], values: Mapping[str, Any]) -> bool:
    return any(_reads(key, chooser, values[chooser]) for chooser in owners)


def _reads(key: str, chooser: str, name: str) -> bool:
    registry = choosers()[chooser]
    declared = declared_keys(registry.get(name), chooser)
    if declared is not None:
        return key in declared
    # Who writes an entry for one of our registries may read any of our keys; Detectron2's entries,
    # and those written for its registries, know none.
    return isinstance(registry, ComponentRegistry)


def architectures_sections(entries: Iterator[tuple[str, Any]]) -> set[str]:
    """Sections of which some architecture says, as ``config_sections``, that it reads all keys."""
    return {section for _, entry in entries for section in getattr(entry, "config_sections", ())}
