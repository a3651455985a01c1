"""The options of a report."""

from __future__ import annotations

import argparse
import os

from ...errors import InputError
from ...evaluation.analysis.thresholds import Thresholds, read_thresholds
from ...report import ReportOptions
from .numbers import number_above_0, positive_int

__all__ = ["add_report_options", "report_options"]

DEFAULTS = ReportOptions()
AUTO = "auto"


def add_report_options(parser: argparse.ArgumentParser) -> None:
    """Add what :func:`report_options` reads."""
    parser.add_argument(
        "--iou",
        type=float,
        default=DEFAULTS.iou,
        metavar="X",
        help=f"from which a detection finds an object, 0.1 to 1 (default: {DEFAULTS.iou}); AP is "
        "COCO's",
    )
    parser.add_argument(
        "--score-thresh",
        default=AUTO,
        metavar="S",
        help="score from which detections count in precision, recall and confusion: auto (the "
        "highest F1 of each class), a number, or a thresholds.yaml (default: auto)",
    )
    parser.add_argument(
        "--max-dets",
        type=positive_int,
        metavar="N",
        help="detections of each image and class that count (default: TEST.DETECTIONS_PER_IMAGE)",
    )
    parser.add_argument(
        "--bootstrap",
        type=_draws,
        default=DEFAULTS.draws,
        metavar="N",
        help=f"draws for the intervals; 0: none (default: {DEFAULTS.draws})",
    )
    parser.add_argument(
        "--seed", type=_draws, default=0, metavar="N", help="of the draws (default: 0)"
    )
    parser.add_argument(
        "--num-worst",
        type=_draws,
        default=DEFAULTS.num_worst,
        metavar="N",
        help=f"pictures in each gallery (default: {DEFAULTS.num_worst})",
    )
    parser.add_argument(
        "--max-mb",
        type=number_above_0(10_000, "a number of megabytes above 0"),
        default=DEFAULTS.max_mb,
        metavar="MB",
        help=f"size of the page, for which pictures are left out (default: {DEFAULTS.max_mb:g})",
    )
    parser.add_argument("--no-images", action="store_true", help="show no pictures")


def report_options(args: argparse.Namespace, max_dets: int) -> ReportOptions:
    """What the options say.

    Args:
        args: of a parser with these options.
        max_dets: where ``--max-dets`` is not given.

    Raises:
        InputError: an option has a value that cannot be.
        OSError: the file of thresholds cannot be read.
    """
    if not 0.1 <= args.iou <= 1:
        raise InputError(f"--iou is {args.iou:g}, but must be between 0.1 and 1")
    return ReportOptions(
        iou=args.iou,
        max_dets=args.max_dets or max_dets,
        score_thresh=_score_thresh(args.score_thresh),
        draws=args.bootstrap,
        seed=args.seed,
        num_worst=args.num_worst,
        max_mb=args.max_mb,
        images=not args.no_images,
    )


def _score_thresh(text: str) -> float | Thresholds | None:
    if text == AUTO:
        return None
    try:
        value = float(text)
    except ValueError:
        if os.path.isfile(text):
            return read_thresholds(text)
        raise InputError(
            f"--score-thresh is '{text}'; give auto, a number from 0 to 1, or a thresholds.yaml "
            "that is there"
        ) from None
    if not 0 <= value <= 1:
        raise InputError(f"--score-thresh is {text}, but a score is between 0 and 1")
    return value


def _draws(text: str) -> int:
    """Type of an option."""
    if not text.isdecimal() or int(text) > 1_000_000:
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number from 0 to 1000000")
    return int(text)
