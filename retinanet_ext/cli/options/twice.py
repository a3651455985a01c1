"""Options that stand for config keys, given beside those keys."""

from __future__ import annotations

import argparse

from ...errors import InputError

__all__ = ["refuse_twice"]

KEYS = {  # of an option, the ends of the keys that it sets
    "nms_thresh": (".NMS_THRESH_TEST",),
    "agnostic": (".NMS_KIND",),
    "max_dets": ("TEST.DETECTIONS_PER_IMAGE",),
    "precision": ("MODEL.SPEEDUPS.AUTOCAST",),
    "size": ("INPUT.MIN_SIZE_TEST", "INPUT.MAX_SIZE_TEST"),
    "tile": ("TEST.TILES.SIZE",),
    "tile_overlap": ("TEST.TILES.OVERLAP", "TEST.TILES.OVERLAP_PIXELS"),
    "tile_full_image": ("TEST.TILES.FULL_IMAGE",),
    "tile_batch": ("TEST.TILES.BATCH",),
    "tile_merge": ("TEST.MERGE.KIND",),
    "merge_thresh": ("TEST.MERGE.THRESH",),
    "tta": ("TEST.AUG.ENABLED", "TEST.AUG.MIN_SIZES", "TEST.AUG.MAX_SIZE", "TEST.AUG.FLIP"),
}


def refuse_twice(args: argparse.Namespace) -> None:
    """Raise where ``args`` has an option and, among its ``KEY VALUE`` pairs, the key that it sets.

    Which of the two was meant cannot be known.

    Raises:
        InputError: names both.
    """
    given = list(getattr(args, "opts", None) or [])[::2]
    for option, ends in KEYS.items():
        if getattr(args, option, None) in (None, False, ""):
            continue
        for key in given:
            if str(key).endswith(ends):
                raise InputError(
                    f"--{option.replace('_', '-')} sets {key}, which the KEY VALUE pairs set too; "
                    "give one of them"
                )
