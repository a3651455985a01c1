"""Anchors described the way the paper does: octaves, scales per octave, aspect ratios."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from detectron2.config import configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling import ANCHOR_GENERATOR_REGISTRY
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from detectron2.structures import Boxes
from torch import Tensor

from ..registry import register_once


def octave_sizes(octave_base_sizes: Sequence[float], scales_per_octave: int) -> list[list[float]]:
    """Sizes 2^(i/S) * base for i in 0..S-1, for each base (Sec. 4, "Anchors").

    Args:
        octave_base_sizes: square root of the smallest anchor's area, per level, in pixels.
        scales_per_octave: S.

    Returns:
        One list of S sizes per base.

    Raises:
        ValueError: if a base is not positive or S < 1.
    """
    if scales_per_octave < 1:
        raise ValueError(
            f"MODEL.ANCHOR_GENERATOR.SCALES_PER_OCTAVE must be at least 1, got {scales_per_octave}"
        )
    if not octave_base_sizes or any(base <= 0 for base in octave_base_sizes):
        raise ValueError(
            "MODEL.ANCHOR_GENERATOR.OCTAVE_BASE_SIZES must be positive sizes in pixels, one per "
            f"level, got {list(octave_base_sizes)}"
        )
    steps = [2 ** (i / scales_per_octave) for i in range(scales_per_octave)]
    return [[base * step for step in steps] for base in octave_base_sizes]


@register_once(ANCHOR_GENERATOR_REGISTRY)
class RetinaNetAnchorGenerator(DefaultAnchorGenerator):
    """Anchors of every size and ratio at each location of each level (Sec. 4, "Anchors").

    With the paper's setting (bases 32 to 512, 3 scales, ratios 1:2, 1:1, 2:1) these are the anchors
    of Detectron2's RetinaNet. Any Detectron2 model that builds its anchors from the config can use
    it.
    """

    @configurable
    def __init__(
        self,
        *,
        octave_base_sizes: Sequence[float],
        scales_per_octave: int,
        aspect_ratios: Sequence[Sequence[float]],
        strides: Sequence[int],
        offset: float = 0.5,
    ):
        """
        Args:
            octave_base_sizes: smallest anchor size of each level, in pixels of the network's input.
            scales_per_octave: sizes per level; the next level's base continues the octave.
            aspect_ratios: height / width; one list for all levels, or one per level.
            strides: of each level, in pixels.
            offset: of the first anchor's centre from the top left corner, in strides, in [0, 1).

        Raises:
            ValueError: if the number of bases is not the number of levels.
        """
        if len(octave_base_sizes) != len(strides):
            raise ValueError(
                f"MODEL.ANCHOR_GENERATOR.OCTAVE_BASE_SIZES has {len(octave_base_sizes)} entries "
                f"{list(octave_base_sizes)}, but there are {len(strides)} feature levels with "
                f"strides {list(strides)}; give one size per level"
            )
        super().__init__(
            sizes=octave_sizes(octave_base_sizes, scales_per_octave),
            aspect_ratios=aspect_ratios,
            strides=strides,
            offset=offset,
        )

    @classmethod
    def from_config(cls, cfg: Any, input_shape: list[ShapeSpec]) -> dict[str, Any]:
        node = cfg.MODEL.ANCHOR_GENERATOR
        return {
            "octave_base_sizes": node.OCTAVE_BASE_SIZES,
            "scales_per_octave": node.SCALES_PER_OCTAVE,
            "aspect_ratios": node.ASPECT_RATIOS,
            "strides": [shape.stride for shape in input_shape],
            "offset": node.OFFSET,
        }

    def forward(self, features: list[Tensor]) -> list[Boxes]:
        """Return L Boxes (Hi*Wi*A, 4), absolute XYXY pixels, in the order (Hi, Wi, A).

        Args:
            features: L feature maps (N, C, Hi, Wi); only their last two sizes are used.
        """
        grids = zip(features, self.strides, self.cell_anchors, strict=True)
        return [Boxes(self._level_anchors(f, stride, cell)) for f, stride, cell in grids]

    def _level_anchors(self, feature: Tensor, stride: int, cell_anchors: Tensor) -> Tensor:
        height, width = feature.shape[-2:]
        device, dtype = cell_anchors.device, cell_anchors.dtype
        rows = (torch.arange(height, device=device, dtype=dtype) + self.offset) * stride
        columns = (torch.arange(width, device=device, dtype=dtype) + self.offset) * stride
        y, x = torch.meshgrid(rows, columns, indexing="ij")
        centres = torch.stack((x, y, x, y), dim=-1)  # (Hi, Wi, 4)
        return (centres[:, :, None] + cell_anchors).reshape(-1, 4)
