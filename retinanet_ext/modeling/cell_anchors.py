"""Anchors of one location given as boxes: MODEL.ANCHOR_GENERATOR.CELL_ANCHORS."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from detectron2.config import CfgNode
from detectron2.config import get_cfg as get_detectron2_cfg

from ..errors import InputError


def check_cell_anchors(levels: Any, num_levels: int | None = None) -> None:
    """Refuse what is no list of boxes for each level.

    Args:
        levels: MODEL.ANCHOR_GENERATOR.CELL_ANCHORS.
        num_levels: how many there must be, where that is known.

    Raises:
        InputError: it is something else; says what it must be.
    """
    fits = isinstance(levels, Sequence) and all(
        isinstance(boxes, Sequence) and len(boxes) > 0 and all(map(_is_box, boxes))
        for boxes in levels
    )
    if not fits or (num_levels is not None and len(levels) != num_levels):
        count = f" for each of the {num_levels} levels" if num_levels else " for each level"
        raise InputError(
            f"MODEL.ANCHOR_GENERATOR.CELL_ANCHORS must be a list{count} of boxes [x1, y1, x2, y2] "
            f"with x1 < x2 and y1 < y2, got {str(levels)[:200]}"
        )


def _is_box(box: Any) -> bool:
    numbers = isinstance(box, Sequence) and len(box) == 4 and not isinstance(box, str)
    if not numbers or not all(isinstance(x, (int, float)) and math.isfinite(x) for x in box):
        return False
    return bool(box[0] < box[2] and box[1] < box[3])


def check_nothing_else(node: CfgNode, scales_per_octave: int) -> None:
    """Refuse what CELL_ANCHORS leave unread, and boxes that are none.

    Args:
        node: MODEL.ANCHOR_GENERATOR.
        scales_per_octave: the default of that key.

    Raises:
        InputError: names the key.
    """
    check_cell_anchors(node.CELL_ANCHORS)
    defaults = get_detectron2_cfg().MODEL.ANCHOR_GENERATOR
    for key, unset in (
        ("OCTAVE_BASE_SIZES", []),
        ("SCALES_OF_LEVELS", []),
        ("SCALES_PER_OCTAVE", scales_per_octave),
        ("SIZES", defaults.SIZES),
        ("ASPECT_RATIOS", defaults.ASPECT_RATIOS),
    ):
        if node[key] != unset:
            raise InputError(
                f"MODEL.ANCHOR_GENERATOR.{key} is {node[key]}, but nothing reads it where "
                f"CELL_ANCHORS say all; set it to {unset}"
            )
