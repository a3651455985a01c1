"""NVIDIA's ODTK (retinanet-examples)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from ..reading import WeightsError
from .common import (
    Converted,
    network_config,
    permute_anchors,
    renamed,
)
from .network import describe_network, trunk_name
from .torchvision import COCO_NAMES, PIXELS

__all__ = ["from_odtk"]

RATIOS = (1.0, 2.0, 0.5)
"""Height over width, in ODTK's order; the sizes are outside, as here."""

OUR_RATIOS = (0.5, 1.0, 2.0)
ORDER = [size * 3 + RATIOS.index(ratio) for size in range(3) for ratio in OUR_RATIOS]


def _cell_anchors() -> list[list[list[float]]]:
    """ODTK's anchors, in our order, as boxes whose width is x2 - x1.

    They lie around the middle of a cell. ODTK takes x2 - x1 + 1 for their width, so each is one
    pixel wider and taller here, to the right and below.
    """
    levels = []
    for stride in (8, 16, 32, 64, 128):
        boxes = []
        for i in range(3):
            scale = 4 * 2 ** (i / 3)
            for ratio in OUR_RATIOS:
                width = stride * scale / ratio**0.5
                height = width * ratio
                left, top = (stride - width) / 2, (stride - height) / 2
                boxes.append([left, top, left + width + 1, top + height + 1])
        levels.append(boxes)
    return levels


CELL_ANCHORS = _cell_anchors()


def _name_of(backbone: str) -> Any:
    """From Detectron2's name, for a network whose backbone has that name."""

    def name_of(name: str) -> str:
        start = f"backbones.{backbone}."
        if name.startswith("backbone.bottom_up."):
            return f"{start}features.{trunk_name(name.removeprefix('backbone.bottom_up.'))}"
        name = re.sub(r"^backbone\.fpn_lateral(\d)", rf"{start}lateral\1", name)
        name = re.sub(r"^backbone\.fpn_output(\d)", rf"{start}smooth\1", name)
        name = re.sub(r"^backbone\.top_block\.p(\d)", rf"{start}pyramid\1", name)
        for ours, theirs in (
            ("head.cls_subnet.", "cls_head."),
            ("head.cls_score.", "cls_head.8."),
            ("head.bbox_subnet.", "box_head."),
            ("head.bbox_pred.", "box_head.8."),
        ):
            if name.startswith(ours):
                return theirs + name.removeprefix(ours)
        return name

    return name_of


def from_odtk(weights: Mapping[str, Tensor], classes: Sequence[str] = (), **_: Any) -> Converted:
    """A detector from ODTK's state dict.

    Args:
        weights: by ODTK's names.
        classes: names of the classes.

    Raises:
        WeightsError: it is another network, of rotated boxes, or has several backbones.
    """
    backbones = sorted({k.split(".")[1] for k in weights if k.startswith("backbones.")})
    if len(backbones) != 1:
        raise WeightsError(f"it has the backbones {', '.join(backbones)}, in place of one")
    name_of = _name_of(backbones[0])
    # The last layer of a subnet has the number that another convolution would have.
    towers = {k: v for k, v in weights.items() if not k.startswith(("cls_head.8.", "box_head.8."))}
    network = describe_network(towers, name_of)
    model, notes = renamed(weights, network, name_of, [r"backbones\.\w+\.features\.fc\."])
    config = network_config(model, network)
    count = config["MODEL.RETINANET.NUM_CLASSES"]
    permute_anchors(model, ORDER, count)
    names = list(classes) or (COCO_NAMES if count == len(COCO_NAMES) else [])
    if names and len(names) != count:
        raise WeightsError(f"it has {count} classes, but {len(names)} names are given")
    config |= {
        "MODEL.ANCHOR_GENERATOR.CELL_ANCHORS": CELL_ANCHORS,
        "MODEL.ANCHOR_GENERATOR.OCTAVE_BASE_SIZES": [],
        "MODEL.RETINANET.CLIP_BEFORE_NMS": True,
        **PIXELS,
    }
    notes += [
        "a box's right and lower side are one more than ODTK's, which counts x2 - x1 + 1 pixels: "
        "the same pixels",
        "ODTK cuts boxes to the padded image, this package to the image",
        "ODTK does not limit how much a box may grow; here it is by at most 62.5 times",
    ]
    return Converted(model, config, names, notes)
