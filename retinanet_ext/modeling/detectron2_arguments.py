"""What Detectron2's RetinaNet is built with, as parts of :class:`RetinaNetExt`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from ..errors import did_you_mean
from ..protocols import BoxCoder
from ..registry import BOX_LOSS_REGISTRY
from .assigners.detectron2_matcher import assigner_of_matcher
from .criteria.box import SmoothL1
from .criteria.classification import FocalLoss
from .postprocess.decode import DenseDecoder

ARGUMENTS_OF = {
    "assigner": ("anchor_matcher",),
    "cls_loss": ("focal_loss_alpha", "focal_loss_gamma"),
    "box_loss": ("smooth_l1_beta", "box_reg_loss_type"),
    "decoder": (
        "test_score_thresh",
        "test_topk_candidates",
        "test_nms_thresh",
        "max_detections_per_image",
    ),
}
"""Part -> arguments of Detectron2's RetinaNet that describe it."""

SHARED = "box2box_transform"
"""The one argument that describes two parts, the box loss and the decoder."""


def complete_parts(
    parts: Mapping[str, Any], arguments: Mapping[str, Any], num_classes: int
) -> dict[str, Any]:
    """The four parts of the detector: those that are given, and the others as Detectron2 has them.

    Args:
        parts: by the keys of :data:`ARGUMENTS_OF`; None where Detectron2's arguments describe it.
        arguments: of Detectron2's RetinaNet, by name; those that it has defaults for may be absent.
        num_classes: K.

    Raises:
        TypeError: an argument that nobody knows, one for a part that is given, or one that is
            missing for a part that is not.
    """
    _check(parts, arguments)
    given = dict(arguments)
    transform = given.pop(SHARED, None)
    made: dict[str, Any] = {}
    if parts["assigner"] is None:
        made["assigner"] = assigner_of_matcher(given["anchor_matcher"], num_classes)
    if parts["cls_loss"] is None:
        focal = {"alpha": "focal_loss_alpha", "gamma": "focal_loss_gamma"}
        made["cls_loss"] = FocalLoss(**_renamed(given, focal))
    if parts["box_loss"] is None:
        made["box_loss"] = _box_loss(given, transform)
    if parts["decoder"] is None:
        settings = {
            "score_thresh": "test_score_thresh",
            "topk_candidates": "test_topk_candidates",
            "nms_thresh": "test_nms_thresh",
            "max_detections": "max_detections_per_image",
        }
        made["decoder"] = DenseDecoder(
            box2box_transform=transform, num_classes=num_classes, **_renamed(given, settings)
        )
    return {**parts, **made}


def _check(parts: Mapping[str, Any], arguments: Mapping[str, Any]) -> None:
    known = [SHARED, *(name for names in ARGUMENTS_OF.values() for name in names)]
    for name in arguments.keys() - set(known):
        raise TypeError(
            f"RetinaNetExt has no argument '{name}', nor has Detectron2's RetinaNet."
            f"{did_you_mean(name, [*parts, *known])}"
        )
    for part, names in ARGUMENTS_OF.items():
        for name in names:
            if parts[part] is not None and name in arguments:
                raise TypeError(
                    f"RetinaNetExt got {part} and {name}, which describe the same part; remove one "
                    f"of them, in a LazyConfig by `del model.{name}`"
                )
    if parts["assigner"] is None and arguments.get("anchor_matcher") is None:
        raise TypeError(
            "RetinaNetExt needs an assigner, or in its place the anchor_matcher of Detectron2's "
            "RetinaNet"
        )
    transform = arguments.get(SHARED)
    missing = [part for part in ("box_loss", "decoder") if parts[part] is None]
    if missing and not hasattr(transform, "apply_deltas"):
        raise TypeError(
            f"RetinaNetExt without {' and '.join(missing)} needs {SHARED}, such as Detectron2's "
            f"Box2BoxTransform, got {type(transform).__name__}"
        )
    if not missing and transform is not None:
        raise TypeError(
            f"RetinaNetExt got {SHARED} beside box_loss and decoder, which have one of their own; "
            "remove it"
        )


def _renamed(given: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """The arguments that are there, ``names`` from ours to Detectron2's."""
    return {ours: given[theirs] for ours, theirs in names.items() if theirs in given}


def _box_loss(given: Mapping[str, Any], transform: BoxCoder | None) -> nn.Module:
    loss_class = BOX_LOSS_REGISTRY.get(given.get("box_reg_loss_type", "smooth_l1"))
    # As in Detectron2, other losses are given a beta and do not look at it.
    beta = _renamed(given, {"beta": "smooth_l1_beta"}) if issubclass(loss_class, SmoothL1) else {}
    return loss_class(box2box_transform=transform, **beta)
