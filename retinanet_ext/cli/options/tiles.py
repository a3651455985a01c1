"""``--tile``, ``--tta`` and what goes with them, for commands that detect."""

from __future__ import annotations

import argparse
import re

from detectron2.config import CfgNode

from ...errors import InputError
from .numbers import positive_int
from .twice import refuse_twice

__all__ = ["add_tile_options", "apply_tile_options"]


def add_tile_options(parser: argparse.ArgumentParser) -> None:
    """Add the options; :func:`apply_tile_options` puts what they say into the config."""
    group = parser.add_argument_group("large pictures and several views of each")
    group.add_argument(
        "--tile",
        type=_size,
        metavar="H[xW]",
        help="cut larger pictures into tiles of so many pixels, and look at each",
    )
    group.add_argument(
        "--tile-overlap",
        type=_overlap,
        metavar="R|Npx",
        help="what two tiles share: a part of a tile, or pixels; larger than the objects at seams "
        "(default: 0.3)",
    )
    group.add_argument(
        "--tile-full-image",
        choices=("yes", "no"),
        help="look at the whole picture too, for objects larger than a tile (default: yes)",
    )
    group.add_argument(
        "--tile-batch", type=positive_int, metavar="N", help="tiles or views at once (default: 4)"
    )
    group.add_argument(
        "--tile-merge",
        choices=("nms", "soft", "wbf", "none"),
        help="how detections of tiles and views become one: NMS, soft-NMS, weighted boxes fusion, "
        "or not at all (default: as the model's own)",
    )
    group.add_argument(
        "--merge-thresh",
        type=_share,
        metavar="IOU",
        help="IoU from which they are one object (default: the model's NMS threshold)",
    )
    group.add_argument(
        "--tta",
        type=_views,
        metavar="flip,SCALE,...",
        help="test-time augmentation: look at each picture mirrored and at other scales too, such "
        "as flip,0.8,1.25; as many times slower",
    )


def apply_tile_options(cfg: CfgNode, args: argparse.Namespace) -> None:
    """Set ``TEST.TILES``, ``TEST.AUG`` and ``TEST.MERGE`` as the options say.

    What no option names stays as it is in the config.

    Args:
        cfg: not frozen; with its ``INPUT.MIN_SIZE_TEST``, which scales are of.
        args: of a parser with :func:`add_tile_options`.

    Raises:
        InputError: an option that nothing reads without another one, or a key that is set twice.
    """
    refuse_twice(args)
    tiles, merge = cfg.TEST.TILES, cfg.TEST.MERGE
    if args.tile:
        tiles.SIZE = args.tile
    if args.tile_overlap is not None:
        tiles.OVERLAP, tiles.OVERLAP_PIXELS = args.tile_overlap
    if args.tile_full_image:
        tiles.FULL_IMAGE = args.tile_full_image == "yes"
    if args.tile_batch:
        tiles.BATCH = args.tile_batch
    if args.tile_merge:
        merge.KIND = args.tile_merge
    if args.merge_thresh is not None:
        merge.THRESH = args.merge_thresh
    if args.tta:
        _apply_views(cfg, *args.tta)
    for option, value in (
        ("--tile-overlap", args.tile_overlap),
        ("--tile-full-image", args.tile_full_image),
    ):
        if value is not None and not tiles.SIZE:
            raise InputError(f"{option} is about tiles; pass --tile with their size too")
    for option, value in (
        ("--tile-merge", args.tile_merge),
        ("--merge-thresh", args.merge_thresh),
        ("--tile-batch", args.tile_batch),
    ):
        if value is not None and not tiles.SIZE and not cfg.TEST.AUG.ENABLED:
            raise InputError(f"{option} is about tiles and views; pass --tile or --tta too")


def _apply_views(cfg: CfgNode, flip: bool, scales: tuple[float, ...]) -> None:
    shortest, longest = cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST
    if shortest == 0:
        raise InputError(
            "--tta makes views of INPUT.MIN_SIZE_TEST times a scale, but that is 0, pictures as "
            "they are; set it to the shortest side of an image in pixels"
        )
    aug = cfg.TEST.AUG
    aug.ENABLED, aug.FLIP = True, flip
    aug.MIN_SIZES = tuple(dict.fromkeys(round(shortest * x) for x in (1.0, *scales)))
    aug.MAX_SIZE = round(longest * max((1.0, *scales)))


def _size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)(?:x(\d+))?", text)
    if not match:
        raise argparse.ArgumentTypeError(f"'{text}' is no size; write 800, or 600x800 (H x W)")
    height = int(match[1])
    return height, int(match[2] or height)


def _overlap(text: str) -> tuple[float, int]:
    """Of both keys: the share, and pixels, where 0 is none given."""
    if re.fullmatch(r"[1-9]\d*px", text):
        return 0.3, int(text[:-2])
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0 <= share < 1:
        raise argparse.ArgumentTypeError(
            f"'{text}' is no overlap; write a part of a tile from 0 and below 1, such as 0.3, or "
            "pixels, such as 160px"
        )
    return share, 0


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"'{text}' is no IoU from 0 to 1")
    return value


def _views(text: str) -> tuple[bool, tuple[float, ...]]:
    words = text.split(",")
    try:
        scales = tuple(float(x) for x in words if x != "flip")
    except ValueError:
        scales = (-1.0,)
    if not all(0.1 <= x <= 10 for x in scales):
        raise argparse.ArgumentTypeError(
            f"'{text}' names no views; write flip, scales from 0.1 to 10, or both: flip,0.8,1.25"
        )
    return "flip" in words, scales
