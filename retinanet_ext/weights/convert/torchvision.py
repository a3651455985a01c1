"""torchvision's ``retinanet_resnet50_fpn`` and ``_v2``, and others of its ResNets."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from detectron2.data.datasets.builtin_meta import COCO_CATEGORIES
from torch import Tensor

from ..reading import WeightsError
from .common import (
    ANCHORS,
    Converted,
    network_config,
    permute_anchors,
    renamed,
)
from .network import describe_network, trunk_name

__all__ = [
    "CELL_ANCHORS",
    "COCO_IDS",
    "COCO_NAMES",
    "COCO_ROWS",
    "ORDER",
    "from_torchvision",
    "name_of_step",
]

COCO_IDS = [x["id"] for x in COCO_CATEGORIES if x["isthing"]]
COCO_NAMES = [x["name"] for x in COCO_CATEGORIES if x["isthing"]]
COCO_ROWS = 91
"""Classes of its weights for COCO: category ids, of which 0 and ten others are nothing."""

# Ours has the sizes outside and the ratios inside, torchvision the other way round.
ORDER = [ratio * 3 + size for size in range(3) for ratio in range(3)]
MEAN = [0.485, 0.456, 0.406]
STD = [0.229, 0.224, 0.225]
PIXELS: dict[str, Any] = {
    "MODEL.PIXEL_MEAN": [255 * x for x in MEAN],
    "MODEL.PIXEL_STD": [255 * x for x in STD],
    "INPUT.FORMAT": "RGB",
}


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


def _plain_name(name: str) -> str:
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


def name_of_step(step: int) -> Any:
    """The whole of :func:`_plain_name` for a head of so many layers per convolution."""

    def name_of(name: str) -> str:
        found = re.match(r"head\.(cls|bbox)_subnet\.(\d+)\.(.*)", name)
        if not found:
            return _plain_name(name)
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
    name_of = name_of_step(3 if has_norm else 2)
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
        **PIXELS,
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
