"""The options of ``retinanet-ext anchors``."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from ...anchor_tools import METHODS, SHAPE_KMEANS
from ..common import add_training_set, config_options

__all__ = ["DESCRIPTION", "add_actions"]

DESCRIPTION = (
    "How well the anchors of a config cover the objects of a training set, in pixels of the "
    "network's input, and which anchors would cover them better."
)


def add_actions(parser: argparse.ArgumentParser, run: Callable[[argparse.Namespace], int]) -> None:
    """Add ``show`` and ``optimise`` with their options.

    Args:
        parser: of the command.
        run: does what the parsed options ask for.
    """
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    show = actions.add_parser(
        "show", help="best-possible recall, and matches per level", parents=[config_options()]
    )
    _add_data_options(show, run)
    show.add_argument("--json", metavar="FILE", help="write all numbers to FILE")
    show.add_argument("--picture", metavar="FILE", help="draw the objects that no anchor covers")
    show.add_argument(
        "--num-images",
        type=int,
        default=300,
        metavar="N",
        help="views to match all anchors in, spread evenly; 0 for all (default: 300). Recall is "
        "always that of all",
    )
    optimise = actions.add_parser(
        "optimise", help="better sizes and ratios, as yaml", parents=[config_options()]
    )
    _add_data_options(optimise, run)
    for flag, what in (("--scales-per-octave", "sizes"), ("--ratios", "aspect ratios")):
        optimise.add_argument(
            flag, type=int, metavar="N", help=f"{what} per level (default: as many as now)"
        )
    optimise.add_argument(
        "--method",
        choices=(*METHODS, SHAPE_KMEANS),
        default=METHODS[0],
        help=f"(default: {METHODS[0]}). {SHAPE_KMEANS}: any widths and heights, the smallest on "
        "the finest level, by k-means on the IoU of shapes (YOLO)",
    )
    optimise.add_argument(
        "--shapes",
        type=int,
        metavar="N",
        help=f"with {SHAPE_KMEANS}: shapes per level (default: as many as now)",
    )
    optimise.add_argument(
        "--output", metavar="F.yaml", help="write a config on top of --config-file"
    )
    optimise.add_argument("--force", action="store_true", help="overwrite the file of --output")


def _add_data_options(
    parser: argparse.ArgumentParser, run: Callable[[argparse.Namespace], int]
) -> None:
    add_training_set(parser, default="DATASETS.TRAIN")
    parser.add_argument(
        "--samples",
        type=int,
        default=0,
        metavar="N",
        help="N images at random through training's augmentation (reads them); by default every "
        "image at each of INPUT.MIN_SIZE_TRAIN",
    )
    parser.add_argument("--seed", type=int, default=0, help="(default: 0)")
    parser.set_defaults(run=run)
