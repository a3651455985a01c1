"""A detector of this package as a state dict of torchvision's RetinaNet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from ...errors import InputError
from .common import ANCHORS, count_classes, permute_anchors
from .network import Network, describe_network
from .torchvision import CELL_ANCHORS, COCO_IDS, COCO_NAMES, COCO_ROWS, ORDER, name_of_step

__all__ = ["to_torchvision"]

NOTHING = -100.0
"""Logit of a class that no box ever has."""


def to_torchvision(
    model: Mapping[str, Tensor], config: Mapping[str, Any], classes: Sequence[str]
) -> tuple[dict[str, Tensor], list[str]]:
    """torchvision's state dict of a detector.

    Args:
        model: by Detectron2's names.
        config: of it, by full names of the keys.
        classes: names, if known.

    Returns:
        The state dict, and notes: how to build the network that it is for, what is not exact.

    Raises:
        InputError: torchvision has no such network; names the key.
    """
    if config["MODEL.RESNETS.STRIDE_IN_1X1"] and config["MODEL.RESNETS.DEPTH"] >= 50:
        raise InputError(
            "MODEL.RESNETS.STRIDE_IN_1X1 is True, as in Detectron2's own weights, but "
            "torchvision's ResNet halves the map in its 3x3 convolutions: other numbers"
        )
    if not config["MODEL.FPN.TOP_BLOCK_RELU"]:
        raise InputError("MODEL.FPN.TOP_BLOCK_RELU is False, but torchvision has a ReLU before P7")
    model = dict(model)
    num_classes = count_classes(model)
    network = describe_network(model, lambda name: name)
    notes = _how_to_build(config, network)
    _add_rows(model, num_classes, is_coco(classes, num_classes), notes)
    rows = count_classes(model)
    inverse = [ORDER.index(i) for i in range(ANCHORS)]
    permute_anchors(model, inverse, rows)
    if config["INPUT.FORMAT"] == "BGR":
        stem = "backbone.bottom_up.stem.conv1.weight"
        model[stem] = model[stem].flip(1).contiguous()
    name_of = name_of_step(3 if network.has_norm else 2)
    found = {}
    for name in network.names():
        if name not in model:
            continue
        if network.has_norm and network.may_lack(name) and name.endswith(".bias"):
            if model[name].any():
                raise InputError(
                    f"{name} is not 0, but torchvision has no bias before a norm; train with one "
                    "that stays 0, or without MODEL.RETINANET.NORM"
                )
            continue
        found[name_of(name)] = model[name]
    return found, notes


def is_coco(classes: Sequence[str], num_classes: int) -> bool:
    """Whether the classes are COCO's, as far as is known."""
    return list(classes) == COCO_NAMES or (not classes and num_classes == len(COCO_NAMES))


def _add_rows(model: dict[str, Tensor], num_classes: int, coco: bool, notes: list[str]) -> None:
    """Put the classes where torchvision has them, with rows that say no between, in place."""
    rows = COCO_IDS if coco else list(range(1, num_classes + 1))
    total = COCO_ROWS if coco else num_classes + 1
    for part, filler in (("weight", 0.0), ("bias", NOTHING)):
        name = f"head.cls_score.{part}"
        value = model[name].unflatten(0, (ANCHORS, num_classes))
        wide = value.new_full((ANCHORS, total, *value.shape[2:]), filler)
        wide[:, rows] = value
        model[name] = wide.flatten(0, 1)
    notes.append(
        f"{total - num_classes} classes that no box ever has are added, as torchvision counts "
        f"{'COCO category ids' if coco else 'the background as class 0'}: num_classes={total}"
    )


def _how_to_build(config: Mapping[str, Any], network: Network) -> list[str]:
    depth = config["MODEL.RESNETS.DEPTH"]
    p5, norm = config["MODEL.FPN.TOP_BLOCK_IN"] == "p5", network.has_norm
    mean, std = config["MODEL.PIXEL_MEAN"], config["MODEL.PIXEL_STD"]
    if config["INPUT.FORMAT"] == "BGR":
        mean, std = mean[::-1], std[::-1]
    notes = [
        f"build it with image_mean={[round(x / 255, 6) for x in mean]}, "
        f"image_std={[round(x / 255, 6) for x in std]} and batch norms of "
        f"eps={config['MODEL.RESNETS.NORM_EPS']}"
    ]
    if depth == 50 and p5 != norm:
        notes.append(f"its builder is retinanet_resnet50_fpn{'_v2' if norm else ''}")
    else:
        source = 256 if p5 else 2048 if network.bottleneck else 512
        notes.append(
            f"no builder of torchvision makes it: put resnet{depth} with extra_blocks="
            f"LastLevelP6P7({source}, 256) under its RetinaNet"
        )
    if config["MODEL.ANCHOR_GENERATOR.CELL_ANCHORS"] != CELL_ANCHORS:
        notes.append("torchvision rounds anchors to whole pixels: boxes move by up to half a pixel")
    return notes
