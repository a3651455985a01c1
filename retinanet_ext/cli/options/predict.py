"""Options of ``retinanet-ext predict``."""

from __future__ import annotations

import argparse
import os
from typing import Any

from ...errors import ExistsError, InputError
from ...inference.outputs import FORMATS, check_clip
from ...inference.sources import Listing
from ...inference.streaming.reading import default_workers
from ...inference.streaming.stream import AUTO_BATCH
from ..common import config_options
from .detections import add_detection_options, names
from .model import add_trailing_opts
from .numbers import number_above_0, positive_int
from .tiles import add_tile_options

__all__ = ["add_options", "check_together"]

BATCH_SIZE = 4


def add_options(subparsers: Any, name: str) -> argparse.ArgumentParser:
    """Add the command with all of its options."""
    parser = subparsers.add_parser(
        name,
        parents=[config_options(required=False, opts=False)],
        usage="%(prog)s MODEL SOURCE... --output DIR [options]\n"
        "       %(prog)s --config-file FILE --weights FILE SOURCE... --output DIR [options]",
        description="Detect objects in pictures, videos or what a camera sees. predictions.jsonl "
        "gets a line per picture as it is done. Exit status: 0; 1 if a picture could not be read "
        "(failed.txt); 2 for a mistake in the command; 130 after Ctrl-C.",
    )
    parser.add_argument(
        "sources",
        nargs="+",
        metavar="MODEL SOURCE",
        help="MODEL: OUTPUT_DIR of a training, an exported file, or demo, a small model of shapes "
        "that comes along (without SOURCE it draws pictures for itself). SOURCE: pictures, videos, "
        "folders, 'patterns/*.jpg', a .txt list with a path a line, webcam or webcam:1, - for "
        "paths on the standard input",
    )
    parser.add_argument(
        "--weights",
        default="",
        metavar="FILE",
        help="checkpoint (default: MODEL's final one); or best",
    )
    _add_outputs(parser)
    add_detection_options(parser)
    add_tile_options(parser)
    _add_video(parser)
    _add_running(parser)
    add_trailing_opts(parser)
    return parser


def check_together(args: argparse.Namespace, listing: Listing) -> None:
    """Raise InputError for options that do not go together, or not with these sources."""
    if args.resume and args.overwrite:
        raise InputError("--resume continues and --overwrite begins again; pass one of them")
    if args.resume and listing.is_live:
        raise InputError("a camera cannot be continued; leave out --resume")
    if args.annotations and "coco" not in args.format:
        raise InputError("--annotations gives the ids of --format coco, which is missing")
    _check_read(args, listing)
    if not args.video_out:
        return
    check_clip(args.video_out)
    if len(listing.entries) != 1 or listing.only_pictures:
        raise InputError("--video-out takes one video, or a camera, as the only source")
    if args.resume:
        raise InputError("--video-out cannot be continued; pass --overwrite in place of --resume")
    if os.path.exists(args.video_out):
        source = listing.entries[0].path
        if os.path.exists(source) and os.path.samefile(args.video_out, source):
            raise InputError(
                f"--video-out is '{args.video_out}', the video that is read; name another file"
            )
        if not args.overwrite:
            raise ExistsError(
                f"--video-out is '{args.video_out}', which is there already; name another file, or "
                "pass --overwrite"
            )


def _check_read(args: argparse.Namespace, listing: Listing) -> None:
    """Raise InputError for an option that nothing would read."""
    of_videos = {"--every": args.every != 1, "--start": args.start, "--end": args.end}
    for name, given in of_videos.items():
        if given and listing.only_pictures and listing.rest is None:
            raise InputError(f"{name} is about videos, and only pictures are read; leave it out")
    if args.fps and not args.video_out:
        raise InputError("--fps is the rate of --video-out, which is missing")
    if args.no_labels and not (args.draw or args.show or args.video_out):
        raise InputError("--no-labels is about drawings; pass --draw, --show or --video-out too")


def _add_outputs(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("results")
    group.add_argument("--output", default="", metavar="DIR", help="folder for the results")
    group.add_argument(
        "--format",
        type=_formats,
        default=[],
        metavar="F,...",
        help=f"further files: {', '.join(FORMATS[1:])}; jsonl is always written",
    )
    group.add_argument(
        "--annotations", default="", metavar="FILE", help="COCO json whose ids --format coco takes"
    )
    group.add_argument(
        "--draw", action="store_true", help="write pictures with detections to drawn/"
    )
    group.add_argument(
        "--no-labels", action="store_true", help="draw boxes without classes and scores"
    )
    group.add_argument("--crops", action="store_true", help="write each object to crops/CLASS/")
    group.add_argument("--show", action="store_true", help="show detections in a window")
    group.add_argument("--resume", action="store_true", help="continue what is in --output")
    group.add_argument("--overwrite", action="store_true", help="replace what is in --output")


def _add_video(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("videos")
    group.add_argument(
        "--video-out", default="", metavar="FILE", help="write the drawn video (.webm)"
    )
    group.add_argument("--every", type=positive_int, default=1, metavar="N", help="each Nth frame")
    group.add_argument("--start", metavar="TIME", help="90, 1:30 or 0:01:30")
    group.add_argument("--end", metavar="TIME", help="likewise")
    group.add_argument(
        "--fps",
        type=number_above_0(1000, "a number between 0 and 1000"),
        metavar="F",
        help="of --video-out (default: the video's)",
    )


def _add_running(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("running")
    group.add_argument("--recursive", action="store_true", help="read folders within folders")
    group.add_argument(
        "--batch-size",
        type=_batch_size,
        default=BATCH_SIZE,
        metavar="N|auto",
        help=f"pictures at once (default: {BATCH_SIZE}); auto: {AUTO_BATCH['cuda']} on a GPU and "
        f"{AUTO_BATCH['cpu']} on a CPU, halved as often as they do not fit into memory",
    )
    group.add_argument(
        "--workers",
        type=_whole,
        metavar="N",
        help=f"threads that read (default: {default_workers()})",
    )
    group.add_argument(
        "--on-error",
        choices=("skip", "stop"),
        default="skip",
        help="what a picture that cannot be read does (default: skip, and list it in failed.txt)",
    )
    group.add_argument("--dry-run", action="store_true", help="only list what would be read")
    group.add_argument("--quiet", action="store_true", help="no progress and no summary")


def _formats(text: str) -> list[str]:
    found = names(text)
    for name in found:
        if name not in FORMATS:
            raise argparse.ArgumentTypeError(f"'{name}' is none of {', '.join(FORMATS)}")
    return found


def _batch_size(text: str) -> int | None:
    """None for ``auto``."""
    return None if text == "auto" else positive_int(text)


def _whole(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number from 0")
    return int(text)
