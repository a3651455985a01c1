"""torchvision's ``retinanet_resnet50_fpn`` and ``_v2``, and others of its ResNets."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from detectron2.data.datasets.builtin_meta import COCO_CATEGORIES
from torch import Tensor

from ...errors import InputError
from ..reading import WeightsError
from .common import (
    ANCHORS,
    Converted,
    Network,
    count_classes,
    describe_network,
    network_config,
    permute_anchors,
    renamed,
    trunk_name,
)

__all__ = ["CELL_ANCHORS", "from_torchvision", "name_in_torchvision", "to_torchvision"]

COCO_IDS = [x["id"] for x in COCO_CATEGORIES if x["isthing"]]
COCO_NAMES = [x["name"] for x in COCO_CATEGORIES if x["isthing"]]
COCO_ROWS = 91
"""Classes of its weights for COCO: category ids, of which 0 and ten others are nothing."""

# Ours has the sizes outside and the ratios inside, torchvision the other way round.
ORDER = [ratio * 3 + size for size in range(3) for ratio in range(3)]
NOTHING = -100.0
"""Logit of a class that no box ever has."""

MEAN = [0.485, 0.456, 0.406]
STD = [0.229, 0.224, 0.225]


def _cell_anchors() -> list[list[list[float]]]:
    """torchvision's anchors, in our order: whole sizes, corners rounded to whole pixels."""
    levels = []
    for base in (32, 64, 128, 256, 512):
        boxes = []
        for size in (base, int(base * 2 ** (1 / 3)), int(base * 2 ** (2 / 3))):
            for ratio in (0.5, 1.0, 2.0):
                root = torch.tensor(ratio).sqrt()
                half = torch.stack([size / root, size * root]) / 2
                boxes.append([*(-half).round().tolist(), *half.round().tolist()])
        levels.append(boxes)
    return levels


CELL_ANCHORS = _cell_anchors()


def name_in_torchvision(name: str) -> str:
    """From Detectron2's name, with the numbers of a head that has norms every third layer."""
    if name.startswith("backbone.bottom_up."):
        return f"backbone.body.{trunk_name(name.removeprefix('backbone.bottom_up.'))}"
    found = re.match(r"backbone\.fpn_(lateral|output)(\d)\.(.*)", name)
    if found:
        kind = {"lateral": "inner_blocks", "output": "layer_blocks"}[found[1]]
        return f"backbone.fpn.{kind}.{int(found[2]) - 3}.0.{found[3]}"
    name = name.replace("backbone.top_block.", "backbone.fpn.extra_blocks.")
    name = name.replace("head.cls_score.", "head.classification_head.cls_logits.")
    return name.replace("head.bbox_pred.", "head.regression_head.bbox_reg.")


def _name_of(step: int) -> Any:
    """The whole of :func:`name_in_torchvision` for a head of so many layers per convolution."""

    def name_of(name: str) -> str:
        found = re.match(r"head\.(cls|bbox)_subnet\.(\d+)\.(.*)", name)
        if not found:
            return name_in_torchvision(name)
        head = {"cls": "classification_head", "bbox": "regression_head"}[found[1]]
        conv, layer = divmod(int(found[2]), step)
        return f"head.{head}.conv.{conv}.{layer}.{found[3]}"

    return name_of


def _modern(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Names as torchvision writes them today; it reads those of before 0.14, too."""
    old_head = "head.classification_head.conv.0.weight" in weights
    found = {}
    for name, value in weights.items():
        name = re.sub(r"(inner_blocks|layer_blocks)\.(\d)\.(weight|bias)$", r"\1.\2.0.\3", name)
        if old_head:
            name = re.sub(
                r"_head\.conv\.(\d)\.(weight|bias)$",
                lambda m: f"_head.conv.{int(m[1]) // 2}.0.{m[2]}",
                name,
            )
        found[name] = value
    return found


def from_torchvision(
    weights: Mapping[str, Tensor],
    classes: Sequence[str] = (),
    norm_eps: float | None = None,
    **_: Any,
) -> Converted:
    """A detector from torchvision's state dict.

    Args:
        weights: by torchvision's names.
        classes: names of the classes of a detector that is not for COCO: one per row, or one less
            where row 0 is the background.
        norm_eps: of the batch norms; by default 0 where they are frozen and the head has no norm,
            as in torchvision's own first weights, else 1e-5.

    Raises:
        WeightsError: it is another network, or ``classes`` do not fit.
    """
    weights = _modern(weights)
    counted = any(name.endswith("num_batches_tracked") for name in weights)
    has_norm = "head.classification_head.conv.0.1.weight" in weights
    name_of = _name_of(3 if has_norm else 2)
    network = describe_network(weights, name_of)
    model, notes = renamed(weights, network, name_of)
    config = network_config(model, network)
    permute_anchors(model, ORDER, config["MODEL.RETINANET.NUM_CLASSES"])
    names = _choose_rows(model, config, list(classes), notes)
    if norm_eps is None:
        norm_eps = 1e-5 if counted or has_norm else 0.0
        if norm_eps == 0:
            notes.append(
                "batch norms add 0 to the variance, as in torchvision's weights for COCO; where "
                "training began from ImageNet weights instead, give --norm-eps 1e-5"
            )
    notes.append(
        "P6 and P7: torchvision takes the padded image's side over the map's as their stride, "
        "which is 64 and 128 only where padded sides are multiples of 128; elsewhere their anchors "
        "lie a little apart"
    )
    notes.append("boxes of which clipping leaves no area are left out; torchvision shows them")
    notes.append("torchvision resizes without smoothing, this package as Pillow does")
    config |= {
        "MODEL.RESNETS.NORM_EPS": norm_eps,
        "MODEL.ANCHOR_GENERATOR.CELL_ANCHORS": CELL_ANCHORS,
        "MODEL.ANCHOR_GENERATOR.OCTAVE_BASE_SIZES": [],
        "MODEL.RETINANET.CLIP_BEFORE_NMS": True,
        "MODEL.PIXEL_MEAN": [255 * x for x in MEAN],
        "MODEL.PIXEL_STD": [255 * x for x in STD],
        "INPUT.FORMAT": "RGB",
        "TEST.DETECTIONS_PER_IMAGE": 300,
    }
    return Converted(model, config, names, notes)


def _choose_rows(
    model: dict[str, Tensor], config: dict[str, Any], classes: list[str], notes: list[str]
) -> list[str]:
    """Take the rows of real classes, in place; returns the names."""
    num_rows = config["MODEL.RETINANET.NUM_CLASSES"]
    rows = list(range(num_rows))
    weight = model["head.cls_score.weight"].unflatten(0, (ANCHORS, num_rows))
    if num_rows == COCO_ROWS and not classes:
        rows, classes = list(COCO_IDS), list(COCO_NAMES)
        notes.append("of 91 classes, the 80 of COCO are kept, by category id")
    elif len(classes) == num_rows - 1 or (not classes and not weight[:, 0].any()):
        rows = rows[1:]
        notes.append("class 0, the background, which nothing learns, is left out")
    elif classes and len(classes) != num_rows:
        raise WeightsError(
            f"it has {num_rows} classes, but {len(classes)} names are given; give {num_rows}, or "
            f"{num_rows - 1} without the background"
        )
    for part in ("weight", "bias"):
        name = f"head.cls_score.{part}"
        value = model[name].unflatten(0, (ANCHORS, num_rows))
        model[name] = value[:, rows].flatten(0, 1).contiguous()
    config["MODEL.RETINANET.NUM_CLASSES"] = len(rows)
    return classes


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
    name_of = _name_of(3 if network.has_norm else 2)
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
