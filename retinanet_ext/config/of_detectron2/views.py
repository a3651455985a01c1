"""Rules for ``TEST.AUG``, and for ``TEST.TILES`` and ``TEST.MERGE`` of this package beside it."""

from __future__ import annotations

import math
import re
from typing import Any

from detectron2.config import CfgNode

from ...errors import InputError

__all__ = ["check_tiles_and_views"]

SMALLEST_TILE = 64
"""Pixels of its shorter side."""


def check_tiles_and_views(cfg: CfgNode, architecture: Any) -> list[str]:
    """Check ``TEST.TILES``, ``TEST.AUG`` and ``TEST.MERGE``.

    Args:
        cfg: the config.
        architecture: the class of its model.

    Returns:
        Warnings: what is set, but not read.

    Raises:
        InputError: names the key, its value and the fix.
    """
    tiles, aug, merge = cfg.TEST.TILES, cfg.TEST.AUG, cfg.TEST.MERGE
    threshold = merge.THRESH
    if threshold is not None and not (_is_number(threshold) and 0 <= threshold <= 1):
        raise InputError(
            f"TEST.MERGE.THRESH is {threshold!r}; set it to an IoU in [0, 1], or None for "
            "MODEL.RETINANET.NMS_THRESH_TEST"
        )
    _check_tiles(cfg)
    if aug.ENABLED and not (
        isinstance(aug.MIN_SIZES, (list, tuple))
        and aug.MIN_SIZES
        and all(map(_is_size, aug.MIN_SIZES))
    ):
        raise InputError(
            f"TEST.AUG.MIN_SIZES is {aug.MIN_SIZES!r}; set it to the shortest sides of the views, "
            "in pixels, such as (640, 800), or TEST.AUG.ENABLED False"
        )
    if not tiles.SIZE and not aug.ENABLED:
        return [
            f"TEST.MERGE.{key} is {value!r}, but without TEST.TILES.SIZE and TEST.AUG.ENABLED "
            "nothing reads it; set one of them"
            for key, value, default in (
                ("KIND", merge.KIND, ""),
                ("THRESH", threshold, None),
                ("AVERAGE", merge.AVERAGE, 0.7),
            )
            if value != default
        ]
    if not hasattr(architecture, "candidates"):
        key = "TEST.TILES.SIZE" if tiles.SIZE else "TEST.AUG.ENABLED"
        raise InputError(
            f"{key} is {tiles.SIZE or True!r}, but {cfg.MODEL.META_ARCHITECTURE} does not give the "
            "boxes before NMS that are put together; set MODEL.META_ARCHITECTURE to RetinaNetExt, "
            "which takes the weights of a RetinaNet, or the key to its default"
        )
    return []


def _check_tiles(cfg: CfgNode) -> None:
    node = cfg.TEST.TILES
    size = node.SIZE
    if not size:
        return
    if not isinstance(size, (list, tuple)) or len(size) > 2 or not all(map(_is_size, size)):
        raise InputError(
            f"TEST.TILES.SIZE is {size!r}; set it to height and width of a tile in pixels, such as "
            "(800, 800), or () for none"
        )
    smallest = min(size)
    if smallest <= node.OVERLAP_PIXELS:
        raise InputError(
            f"TEST.TILES.OVERLAP_PIXELS is {node.OVERLAP_PIXELS}, but a tile of TEST.TILES.SIZE "
            f"{tuple(size)} has only {smallest} pixels on its shorter side; make the overlap "
            "smaller, a fifth of it for example"
        )
    levels = [re.fullmatch(r"p(\d)", name) for name in cfg.MODEL.RETINANET.IN_FEATURES]
    stride = max((2 ** int(level[1]) for level in levels if level), default=0)
    needed = max(SMALLEST_TILE, stride)
    if smallest < needed:
        why = f", the largest stride of the anchors is {stride}" if stride == needed else ""
        raise InputError(
            f"TEST.TILES.SIZE is {tuple(size)}, but a tile of {smallest} pixels is too small{why}; "
            f"set it to {needed} or more"
        )


def _is_size(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _is_number(value: Any) -> bool:
    is_real = isinstance(value, (int, float)) and not isinstance(value, bool)
    return is_real and math.isfinite(value)
