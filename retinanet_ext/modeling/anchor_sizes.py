"""Sizes of the anchors of one location: in octaves, one by one, or as whole boxes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from detectron2.config import CfgNode
from detectron2.config import get_cfg as get_detectron2_cfg

from ..errors import InputError

SCALES_PER_OCTAVE = 3
"""The paper's number, and the default of the key of that name."""


def octave_sizes(
    octave_base_sizes: Sequence[float], scales_per_octave: int | Sequence[int]
) -> list[list[float]]:
    """Sizes 2^(i/S) * base for i in 0..S-1, for each base (Sec. 4, "Anchors").

    Args:
        octave_base_sizes: square root of the smallest anchor's area, per level, in pixels.
        scales_per_octave: S, or one S for each base.

    Returns:
        One list of S sizes per base.

    Raises:
        ValueError: if a base is not positive, S < 1, or there is not one S per base.
    """
    if isinstance(scales_per_octave, int):
        if scales_per_octave < 1:
            raise InputError(
                "MODEL.ANCHOR_GENERATOR.SCALES_PER_OCTAVE must be at least 1, got "
                f"{scales_per_octave}"
            )
        scales_per_octave = [scales_per_octave] * len(octave_base_sizes)
    if len(scales_per_octave) != len(octave_base_sizes) or min(scales_per_octave, default=1) < 1:
        raise InputError(
            f"MODEL.ANCHOR_GENERATOR.SCALES_OF_LEVELS is {list(scales_per_octave)}; give one "
            f"number, at least 1, for each of the {len(octave_base_sizes)} OCTAVE_BASE_SIZES, or "
            "[] for SCALES_PER_OCTAVE at every level"
        )
    if not octave_base_sizes or any(
        not isinstance(base, (int, float)) or not 0 < base < math.inf for base in octave_base_sizes
    ):
        raise InputError(
            "MODEL.ANCHOR_GENERATOR.OCTAVE_BASE_SIZES must be positive sizes in pixels, one per "
            f"level, got {list(octave_base_sizes)}"
        )
    return [
        [base * 2 ** (i / scales) for i in range(scales)]
        for base, scales in zip(octave_base_sizes, scales_per_octave, strict=True)
    ]


def chosen_sizes(
    octave_base_sizes: Sequence[float],
    scales_per_octave: int | Sequence[int],
    sizes: Sequence[Sequence[float]],
) -> list[list[float]]:
    """Sizes of the levels, from octaves or as they are given.

    Raises:
        ValueError: if both or none are given, or some are not positive.
    """
    if not sizes:
        return octave_sizes(octave_base_sizes, scales_per_octave)
    if octave_base_sizes:
        raise InputError("anchors have octave_base_sizes or sizes; give one of them")
    level: Any
    for level in sizes:
        is_list = isinstance(level, Sequence) and not isinstance(level, str) and len(level) > 0
        if not is_list or any(
            not isinstance(size, (int, float)) or not 0 < size < math.inf for size in level
        ):
            raise InputError(
                "MODEL.ANCHOR_GENERATOR.SIZES must be one list of positive sizes in pixels for "
                f"each level, or one list for all, got {list(sizes)}"
            )
    return [list(level) for level in sizes]


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


def check_nothing_else(node: CfgNode) -> None:
    """Refuse what CELL_ANCHORS leave unread, and boxes that are none.

    Args:
        node: MODEL.ANCHOR_GENERATOR.

    Raises:
        InputError: names the key.
    """
    check_cell_anchors(node.CELL_ANCHORS)
    defaults = get_detectron2_cfg().MODEL.ANCHOR_GENERATOR
    for key, unset in (
        ("OCTAVE_BASE_SIZES", []),
        ("SCALES_OF_LEVELS", []),
        ("SCALES_PER_OCTAVE", SCALES_PER_OCTAVE),
        ("SIZES", defaults.SIZES),
        ("ASPECT_RATIOS", defaults.ASPECT_RATIOS),
    ):
        if node[key] != unset:
            raise InputError(
                f"MODEL.ANCHOR_GENERATOR.{key} is {node[key]}, but nothing reads it where "
                f"CELL_ANCHORS say all; set it to {unset}"
            )
