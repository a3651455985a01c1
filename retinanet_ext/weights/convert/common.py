"""What the conversions share: names of tensors, anchors in another order, what the network is.

A conversion is told by one function from Detectron2's name of a tensor to the other toolkit's. All
names of the network are made from its depth and its head, so a tensor that is missing, or one that
is left over, is found and named.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ...errors import listed
from ..reading import WeightsError
from .network import DEPTHS, NameOf, Network

__all__ = [
    "ANCHORS",
    "Converted",
    "count_classes",
    "network_config",
    "permute_anchors",
    "renamed",
]

ANCHORS = 9
"""Anchors per location: three sizes, three ratios."""

_COUNTER = ".num_batches_tracked"


@dataclass
class Converted:
    """A detector under Detectron2's names.

    Attributes:
        model: tensors by name.
        config: the keys that make its numbers equal, by full name.
        classes: names of the classes, in the order of their rows; empty where nothing tells them.
        notes: what was made up, left out or is not exact, each a sentence.
    """

    model: dict[str, Tensor]
    config: dict[str, Any]
    classes: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def renamed(
    weights: Mapping[str, Tensor], network: Network, name_of: NameOf, unused: Sequence[str] = ()
) -> tuple[dict[str, Tensor], list[str]]:
    """Every tensor under Detectron2's name, each used once.

    Args:
        weights: under the other toolkit's names.
        network: of them.
        name_of: see :data:`NameOf`.
        unused: patterns of names of tensors that the detector does not compute with.

    Returns:
        The tensors, as float32; and notes.

    Raises:
        WeightsError: tensors are missing or too many; names the first ones.
    """
    found, missing, notes = {}, [], []
    left = {k for k in weights if not k.endswith(_COUNTER)}
    for name in network.names():
        other = name_of(name)
        if other in weights:
            found[name] = weights[other]
            left.discard(other)
        elif not network.may_lack(name):
            missing.append(other)
    dropped = {k for k in left if any(re.match(pattern, k) for pattern in unused)}
    if missing:
        raise WeightsError(
            f"{len(missing)} tensors of RetinaNet are not in it: {listed(missing[:4])}; it is "
            "another kind of detector, or only a part of one"
        )
    if left - dropped:
        too_many = sorted(left - dropped)
        raise WeightsError(
            f"{len(too_many)} tensors are none of RetinaNet's: {listed(too_many[:4])}; a detector "
            "with more parts than that cannot be converted"
        )
    if dropped:
        notes.append(f"left out, as no detection depends on them: {listed(sorted(dropped)[:4])}")
    if any(value.dtype != torch.float32 for value in found.values()):
        notes.append("numbers of another precision were made float32, which changes none of them")
    biases = [k for k in network.names() if k not in found and k.endswith(".bias")]
    for name in biases:
        if network.has_norm and "_subnet." in name:
            found[name] = torch.zeros(len(found[name.replace(".bias", ".weight")]))
    if biases and network.has_norm:
        notes.append("convolutions before a group norm got a bias of zeros, which they lack there")
    return {name: value.float().clone() for name, value in found.items()}, notes


def permute_anchors(model: dict[str, Tensor], order: Sequence[int], num_classes: int) -> None:
    """Bring the outputs of the anchors of a location into another order, in place.

    Args:
        model: under Detectron2's names.
        order: of the new anchors, which old one each is.
        num_classes: K.
    """
    for layer, width in (("cls_score", num_classes), ("bbox_pred", 4)):
        for part in ("weight", "bias"):
            name = f"head.{layer}.{part}"
            value = model[name].unflatten(0, (len(order), width))
            model[name] = value[list(order)].flatten(0, 1).contiguous()


def count_classes(model: Mapping[str, Tensor]) -> int:
    """K of a head with nine anchors per location.

    Raises:
        WeightsError: it has others, or does not predict boxes.
    """
    boxes, scores = len(model["head.bbox_pred.weight"]), len(model["head.cls_score.weight"])
    if boxes == ANCHORS * 6:
        raise WeightsError(
            "it predicts six numbers per box: rotated boxes, which RetinaNet here does not have"
        )
    if boxes != ANCHORS * 4 or scores % ANCHORS:
        raise WeightsError(
            f"it predicts {boxes} numbers of boxes and {scores} of classes per location; only "
            f"{ANCHORS} anchors per location, {ANCHORS * 4} and a multiple of {ANCHORS}, are known"
        )
    return scores // ANCHORS


def network_config(model: Mapping[str, Tensor], network: Network) -> dict[str, Any]:
    """The keys that follow from the tensors."""
    trunk = "backbone.bottom_up."
    conv2, out = model[f"{trunk}res2.0.conv2.weight"], model[f"{trunk}res2.0.conv2.weight"]
    if network.bottleneck:
        out = model[f"{trunk}res2.0.conv3.weight"]
    groups = len(conv2) // conv2.shape[1]
    p6_in = model["backbone.top_block.p6.weight"].shape[1]
    channels = len(model["backbone.fpn_output3.weight"])
    c5 = model["backbone.fpn_lateral5.weight"].shape[1]
    if p6_in not in (c5, channels):
        raise WeightsError(
            f"its P6 takes {p6_in} channels, neither the {c5} of C5 nor the {channels} of P5"
        )
    return {
        "MODEL.META_ARCHITECTURE": "RetinaNetExt",
        "MODEL.BACKBONE.NAME": "build_fpn_backbone_p6p7",
        "MODEL.FPN.BOTTOM_UP": "build_resnet_backbone",
        "MODEL.FPN.IN_FEATURES": ["res3", "res4", "res5"],
        "MODEL.FPN.OUT_CHANNELS": channels,
        "MODEL.FPN.TOP_BLOCK_IN": "c5" if p6_in == c5 else "p5",
        "MODEL.RESNETS.DEPTH": DEPTHS[network.bottleneck, network.blocks],
        "MODEL.RESNETS.OUT_FEATURES": ["res3", "res4", "res5"],
        "MODEL.RESNETS.NORM": "FrozenBN",
        "MODEL.RESNETS.NUM_GROUPS": groups,
        "MODEL.RESNETS.WIDTH_PER_GROUP": len(conv2) // groups,
        "MODEL.RESNETS.RES2_OUT_CHANNELS": len(out),
        "MODEL.RESNETS.STRIDE_IN_1X1": False,
        "MODEL.ANCHOR_GENERATOR.NAME": "RetinaNetAnchorGenerator",
        "MODEL.RETINANET.NUM_CLASSES": count_classes(model),
        "MODEL.RETINANET.NUM_CONVS": network.num_convs,
        "MODEL.RETINANET.NORM": "GN" if network.has_norm else "",
        "MODEL.RETINANET.IOU_THRESHOLDS": [0.4, 0.5],
        "MODEL.RETINANET.IOU_LABELS": [0, -1, 1],
        "MODEL.RETINANET.SMOOTH_L1_LOSS_BETA": 0.0,
    }
