"""Options that choose which detections there are, and how the network computes them."""

from __future__ import annotations

import argparse
import re
from typing import Any

import numpy as np
from detectron2.config import CfgNode

from ...errors import InputError
from ...evaluation.analysis.thresholds import Thresholds
from ...structures import detection_node
from .numbers import positive_int, share
from .twice import refuse_twice

__all__ = [
    "add_detection_options",
    "add_precision",
    "apply_detection_options",
    "apply_precision",
    "names",
]

PRECISIONS = {"float32": "", "bfloat16": "bfloat16", "float16": "float16", "auto": "auto"}
"""Values of --precision, and of MODEL.SPEEDUPS.AUTOCAST."""


def add_detection_options(parser: argparse.ArgumentParser) -> None:
    """Add the options; :func:`apply_detection_options` puts what they say into the config."""
    group = parser.add_argument_group("detections")
    group.add_argument(
        "--score-thresh",
        type=_score_thresh,
        metavar="S|auto|FILE",
        help="lowest score in drawings, crops and all files but predictions.jsonl, which holds "
        "those from the model's SCORE_THRESH_TEST; or a file with one of each class, as `evaluate "
        "--thresholds` writes it, and auto for the one in MODEL/inference (default: 0.5 in "
        "drawings and crops)",
    )
    group.add_argument(
        "--classes", type=_some_names, default=[], metavar="A,B", help="keep only these classes"
    )
    group.add_argument(
        "--max-dets", type=positive_int, metavar="N", help="of a picture (default: the config's)"
    )
    group.add_argument(
        "--nms-thresh", type=share, metavar="T", help="IoU of NMS (default: the config's)"
    )
    group.add_argument(
        "--agnostic", action="store_true", help="NMS over all classes together, not class by class"
    )
    group.add_argument(
        "--size",
        type=_size,
        metavar="N[,M]",
        help="resize the shorter side of pictures to N pixels, but the longer one to M at most "
        "(default: as in the evaluation; of M: in the same proportion)",
    )
    add_precision(group)


def add_precision(parser: Any) -> None:
    """Add ``--precision`` to a parser or group; :func:`apply_precision` puts it into the config."""
    parser.add_argument(
        "--precision",
        choices=tuple(PRECISIONS),
        help="of the network (default: the config's, float32 as a rule, as in the evaluation); "
        "auto: bfloat16 where the processor computes with it",
    )


def apply_precision(cfg: CfgNode, args: argparse.Namespace) -> None:
    """Set the key that ``--precision`` stands for, where it is given."""
    refuse_twice(args)
    if args.precision is not None:
        cfg.MODEL.SPEEDUPS.AUTOCAST = PRECISIONS[args.precision]


def apply_detection_options(
    cfg: CfgNode, args: argparse.Namespace, thresholds: float | Thresholds | None
) -> None:
    """Set the keys that the options stand for.

    Args:
        cfg: not frozen.
        args: of a parser with :func:`add_detection_options`.
        thresholds: what ``--score-thresh`` names.

    Raises:
        InputError: ``--size`` lacks a number that the config does not give, or a key is set twice.
    """
    refuse_twice(args)
    node = detection_node(cfg)
    if node is None:
        raise InputError(
            f"MODEL.META_ARCHITECTURE is {cfg.MODEL.META_ARCHITECTURE}, which gives no detections; "
            "take the model of a detector"
        )
    if thresholds is not None:
        if isinstance(thresholds, Thresholds):
            lowest = min(thresholds.of_class.values())
        else:
            lowest = thresholds
        # The decoder keeps what is greater, and these are to be kept themselves.
        below = float(np.nextafter(np.float32(lowest), np.float32(0)))
        node.SCORE_THRESH_TEST = min(node.SCORE_THRESH_TEST, below)
    if args.nms_thresh is not None:
        node.NMS_THRESH_TEST = args.nms_thresh
    if args.agnostic and "NMS_KIND" not in node:
        raise InputError(
            f"--agnostic: {cfg.MODEL.META_ARCHITECTURE} has no suppression across classes; leave "
            "it out"
        )
    if args.agnostic:
        node.NMS_KIND = "class_agnostic"
    if args.max_dets is not None:
        cfg.TEST.DETECTIONS_PER_IMAGE = args.max_dets
    apply_precision(cfg, args)
    if args.size:
        _apply_size(cfg, *args.size)


def _apply_size(cfg: CfgNode, shortest: int, longest: int) -> None:
    node = cfg.INPUT
    if node.SIZE_TEST:
        raise InputError(
            f"--size is {shortest}, but the model takes every picture at INPUT.SIZE_TEST "
            f"{list(node.SIZE_TEST)}; leave --size out, or set that key to []"
        )
    if not longest and not node.MIN_SIZE_TEST:
        raise InputError(
            f"--size is {shortest}, and the model's INPUT.MIN_SIZE_TEST of 0 gives no proportion "
            f"for the longer side; write both, such as --size {shortest},{round(shortest * 5 / 3)}"
        )
    node.MAX_SIZE_TEST = longest or round(shortest * node.MAX_SIZE_TEST / node.MIN_SIZE_TEST)
    node.MIN_SIZE_TEST = shortest


def names(text: str) -> list[str]:
    """Type of an option: words with commas between them, each once."""
    return list(dict.fromkeys(x.strip() for x in text.split(",") if x.strip()))


def _some_names(text: str) -> list[str]:
    """At least one of :func:`names`: none would keep all classes."""
    found = names(text)
    if not found:
        raise argparse.ArgumentTypeError(f"'{text}' names no class; leave it out to keep all")
    return found


def _score_thresh(text: str) -> float | str:
    """A number, or the word for a file."""
    try:
        float(text)
    except ValueError:
        return text
    return share(text)


def _size(text: str) -> tuple[int, int]:
    """Shorter side and the most of the longer one, 0 where it is not given."""
    match = re.fullmatch(r"([1-9]\d*)(?:,([1-9]\d*))?", text)
    sides: Any = (int(match[1]), int(match[2] or 0)) if match else (1, -1)
    if 0 != sides[1] < sides[0]:
        raise argparse.ArgumentTypeError(
            f"'{text}' is no size; write the shorter side in pixels, such as 800, or both the "
            "shorter side and the most of the longer one: 800,1333"
        )
    return sides
