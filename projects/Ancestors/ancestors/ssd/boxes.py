"""SSD's default boxes (arXiv 1512.02325, Sec. 2.2).

Letters: L levels, Hi x Wi locations of level i, A boxes per location (levels differ in it).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling import ANCHOR_GENERATOR_REGISTRY
from detectron2.modeling.anchor_generator import BufferList, DefaultAnchorGenerator

from retinanet_ext import register_config_key
from retinanet_ext.errors import InputError
from retinanet_ext.registry import register_once

# [height, width] of the network's input, the same for all pictures.
register_config_key("MODEL.SSD.SIZE", [300, 300])
# Of each level the size of its boxes, in sides of the input, and of one level more; [] is evenly
# from 0.15 to 0.9, and 1.
register_config_key("MODEL.SSD.SCALES", [0.07, 0.15, 0.33, 0.51, 0.69, 0.87, 1.05])
# Of each level, width / height; 1 and the inverses go without saying.
register_config_key("MODEL.SSD.RATIOS", [[2], [2, 3], [2, 3], [2, 3], [2], [2]])
# Pixels from one location to the next; [] is the strides of the features.
register_config_key("MODEL.SSD.STEPS", [8, 16, 32, 64, 100, 300])

KEYS = tuple(f"MODEL.SSD.{name}" for name in ("SIZE", "SCALES", "RATIOS", "STEPS"))


def default_scales(num_levels: int, smallest: float = 0.15, largest: float = 0.9) -> list[float]:
    """Sizes of L levels in even steps, and 1 as the next one (Eq. 4)."""
    step = (largest - smallest) / max(1, num_levels - 1)
    return [smallest + step * i for i in range(num_levels)] + [1.0]


@register_once(ANCHOR_GENERATOR_REGISTRY)
class SSDBoxGenerator(DefaultAnchorGenerator):
    """Boxes of a few shapes at each location of each level.

    A level of size s, the next one's being s', has squares of s and sqrt(s s'), and for each ratio
    r boxes of s sqrt(r) by s / sqrt(r), lying and standing. Sizes are in sides of the input, so
    that squares are those of an input that is one. No box is larger than the input.

    As Detectron2's generator, it gives the boxes of each location in the order of its shapes, and
    may be used by any model.
    """

    config_keys = KEYS

    @configurable
    def __init__(
        self,
        *,
        size: Sequence[int] = (300, 300),
        scales: Sequence[float] = (),
        ratios: Sequence[Sequence[float]],
        steps: Sequence[int],
    ):
        """
        Args:
            size: height and width of the input, px.
            scales: L + 1 sizes; empty: :func:`default_scales`.
            ratios: for each level.
            steps: of each level, px from one location to the next.

        Raises:
            InputError: the numbers of levels do not fit together.
        """
        scales = list(scales) or default_scales(len(steps))
        check_levels(len(steps), scales, ratios)
        super().__init__(sizes=[[1.0]], aspect_ratios=[[1.0]], strides=list(steps), offset=0.5)
        self.cell_anchors = BufferList(
            cell_boxes(scale, following, of_level, size)
            for scale, following, of_level in zip(scales[:-1], scales[1:], ratios, strict=True)
        )

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: list[ShapeSpec]) -> dict[str, Any]:
        node = cfg.MODEL.SSD
        return {
            "size": node.SIZE,
            "scales": node.SCALES,
            "ratios": node.RATIOS,
            "steps": node.STEPS or [shape.stride for shape in input_shape],
        }


def cell_boxes(
    scale: float, following: float, ratios: Sequence[float], size: Sequence[int]
) -> torch.Tensor:
    """The boxes (A, 4) of one location, XYXY px around it.

    Args:
        scale, following: size of this level and of the next, in sides of the input.
        ratios: width / height.
        size: height and width of the input, px.
    """
    shapes = [(scale, scale), (math.sqrt(scale * following),) * 2]
    for ratio in ratios:
        root = math.sqrt(ratio)
        shapes += [(scale * root, scale / root), (scale / root, scale * root)]
    height, width = size
    sides = torch.tensor(shapes).clamp(max=1) * torch.tensor([width, height])
    return torch.cat([-sides, sides], dim=1) / 2


def check_levels(
    num_levels: int, scales: Sequence[float], ratios: Sequence[Sequence[float]]
) -> None:
    """Raise InputError unless there are L + 1 rising scales, and ratios for L levels."""
    if len(scales) != num_levels + 1 or not all(0 < a < b for a, b in itertools.pairwise(scales)):
        raise InputError(
            f"MODEL.SSD.SCALES is {list(scales)}; set it to {num_levels + 1} rising numbers, one "
            f"for each of {num_levels} levels and one more, or to []"
        )
    if len(ratios) != num_levels or not all(r > 0 for level in ratios for r in level):
        raise InputError(
            f"MODEL.SSD.RATIOS is {list(ratios)}; set it to {num_levels} lists of positive "
            "numbers, one for each level"
        )
