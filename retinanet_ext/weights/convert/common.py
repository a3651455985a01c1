"""What the conversions share: names of tensors, anchors in another order, what the network is.

A conversion is told by one function from Detectron2's name of a tensor to the other toolkit's. All
names of the network are made from its depth and its head, so a tensor that is missing, or one that
is left over, is found and named.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ...errors import listed
from ..reading import WeightsError

__all__ = [
    "ANCHORS",
    "Converted",
    "Network",
    "describe_network",
    "network_config",
    "permute_anchors",
    "renamed",
    "trunk_name",
]

ANCHORS = 9
"""Anchors per location: three sizes, three ratios."""

NORM_PARTS = ("weight", "bias", "running_mean", "running_var")
_COUNTER = ".num_batches_tracked"
_DEPTHS: dict[tuple[bool, tuple[int, ...]], int] = {
    (False, (2, 2, 2, 2)): 18,
    (False, (3, 4, 6, 3)): 34,
    (True, (3, 4, 6, 3)): 50,
    (True, (3, 4, 23, 3)): 101,
    (True, (3, 8, 36, 3)): 152,
}

NameOf = Callable[[str], str]
"""From Detectron2's name of a tensor to another toolkit's."""


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


@dataclass(frozen=True)
class Network:
    """What the names and shapes of the tensors tell.

    Attributes:
        blocks: residual blocks of the four stages.
        bottleneck: whether these have three convolutions.
        num_convs: convolutions of each subnet.
        has_norm: whether a group norm follows each of them.
    """

    blocks: tuple[int, ...]
    bottleneck: bool
    num_convs: int
    has_norm: bool

    def names(self) -> list[str]:
        """Detectron2's names of all tensors, shortcuts in every first block included."""
        trunk = "backbone.bottom_up."
        convs = [f"{trunk}stem.conv1"]
        for stage, count in enumerate(self.blocks, start=2):
            for block in range(count):
                layers = [f"conv{i}" for i in range(1, 4 if self.bottleneck else 3)]
                if block == 0:
                    layers.append("shortcut")
                convs += [f"{trunk}res{stage}.{block}.{layer}" for layer in layers]
        found = []
        for conv in convs:
            found += [f"{conv}.weight", *(f"{conv}.norm.{part}" for part in NORM_PARTS)]
        levels = [f"backbone.fpn_{kind}{i}" for kind in ("lateral", "output") for i in (3, 4, 5)]
        layers = [*levels, "backbone.top_block.p6", "backbone.top_block.p7"]
        step = 3 if self.has_norm else 2
        for tower in ("cls_subnet", "bbox_subnet"):
            for i in range(self.num_convs):
                layers.append(f"head.{tower}.{i * step}")
                if self.has_norm:
                    layers.append(f"head.{tower}.{i * step + 1}")
        layers += ["head.cls_score", "head.bbox_pred"]
        return found + [f"{layer}.{part}" for layer in layers for part in ("weight", "bias")]

    def may_lack(self, name: str) -> bool:
        """Whether a network of this kind may do without the tensor: it has no bias, no shortcut."""
        if ".res2.0.shortcut." in name and not self.bottleneck:
            return True
        is_conv = re.fullmatch(r"head\.\w+_subnet\.(\d+)\.bias", name)
        return bool(self.has_norm and is_conv and int(is_conv[1]) % 3 == 0)


def trunk_name(name: str) -> str:
    """torchvision's name of a ResNet's tensor, from Detectron2's without the network's prefix."""
    name = re.sub(r"^stem\.", "", name)
    name = re.sub(r"^res(\d)", lambda m: f"layer{int(m[1]) - 1}", name)
    name = re.sub(r"conv(\d)\.norm", r"bn\1", name)
    return name.replace("shortcut.norm", "downsample.1").replace("shortcut", "downsample.0")


def describe_network(weights: Mapping[str, Tensor], name_of: NameOf) -> Network:
    """What network tensors belong to, whose names ``name_of`` gives.

    Raises:
        WeightsError: it is no ResNet that is known.
    """
    trunk = "backbone.bottom_up."
    blocks = []
    for stage in (2, 3, 4, 5):
        count = 0
        while name_of(f"{trunk}res{stage}.{count}.conv1.weight") in weights:
            count += 1
        blocks.append(count)
    bottleneck = name_of(f"{trunk}res2.0.conv3.weight") in weights
    if (bottleneck, tuple(blocks)) not in _DEPTHS:
        raise WeightsError(
            f"its stages have {blocks} residual blocks, which is none of the ResNets "
            f"{', '.join(map(str, _DEPTHS.values()))}; another backbone cannot be converted"
        )
    for step in (3, 2):  # with a norm between two convolutions, and without
        count = 0
        while name_of(f"head.cls_subnet.{count * step}.weight") in weights:
            count += 1
        has_norm = step == 3 and name_of("head.cls_subnet.1.weight") in weights
        if has_norm or step == 2:
            break
    return Network(tuple(blocks), bottleneck, count, has_norm)


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
        "MODEL.RESNETS.DEPTH": _DEPTHS[network.bottleneck, network.blocks],
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
