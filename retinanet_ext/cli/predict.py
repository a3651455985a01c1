"""``retinanet-ext predict``: detections of pictures, videos or a camera."""

from __future__ import annotations

import argparse
import errno
import os
import sys
from typing import Any

from ..errors import ConfigError, FileError, InputError, count, did_you_mean, listed
from ..evaluation.analysis.thresholds import Thresholds
from ..inference import Predictor
from ..inference.build import describe_detector
from ..inference.detector import is_out_of_memory
from ..inference.exported import is_export
from ..inference.job import Job
from ..inference.outputs import (
    Clip,
    CocoIds,
    PictureFiles,
    ResultsFolder,
    describe_model,
    open_window,
)
from ..inference.outputs.folder import DRAWN
from ..inference.progress import Progress
from ..inference.sources import Listing, VideoOptions, list_sources, seconds_of
from ..inference.sources.lengths import expected_count, frame_rate
from .options.demo import complete_demo
from .options.detections import apply_detection_options
from .options.model import load_model_cfg
from .options.predict import add_options, check_together
from .options.thresholds import find_thresholds, other_weights
from .options.tiles import apply_tile_options

__all__ = ["add_parser", "run"]


def add_parser(subparsers: Any, name: str) -> argparse.ArgumentParser:
    """Add the command and its options."""
    parser = add_options(subparsers, name)
    parser.set_defaults(run=run)
    return parser


def run(args: argparse.Namespace) -> int:
    """Read, detect, write.

    Returns:
        0; 1 where a picture or video could not be read.

    Raises:
        UserError: names the option, its value and what can be done.
    """
    is_demo = complete_demo(args)
    model, sources = _model_and_sources(args)
    video = _video_options(args)
    stdin = sys.stdin.buffer if "-" in sources else None
    listing = list_sources(sources, args.recursive, args.output, stdin)
    if args.dry_run:
        return _list(listing)
    if not args.output:
        raise InputError("--output is missing; name a folder for the results")
    check_together(args, listing)
    show = open_window(wait=listing.only_pictures) if args.show else None
    cfg = load_model_cfg(args, model)
    thresholds = find_thresholds(args.score_thresh, model)
    identity = {"model": describe_model(cfg), **_settings(args, thresholds)}
    apply_detection_options(cfg, args, thresholds)
    apply_tile_options(cfg, args)
    if not args.quiet:
        notes = [*listing.notes, describe_detector(cfg)]
        if isinstance(thresholds, Thresholds):
            notes.append(other_weights(thresholds, cfg.MODEL.WEIGHTS))
        for note in filter(None, notes):
            print(note)
    predictor = Predictor(cfg)
    classes = _class_indices(args.classes, predictor.class_names)
    ids = CocoIds(predictor.class_names, args.annotations)
    clip = _clip(args, listing)
    folder = ResultsFolder(args.output, identity, args.resume, args.overwrite)
    if isinstance(thresholds, Thresholds):
        score_thresh: Any = thresholds.in_order(predictor.class_names)
    else:
        score_thresh = thresholds
    files = PictureFiles(
        *(args.output, args.draw, args.crops, "yolo" in args.format),
        score_thresh,
        not args.no_labels,
    )
    job = Job(
        predictor,
        listing,
        folder,
        files,
        ids,
        args.format,
        classes,
        clip,
        show,
        args.batch_size,
        args.workers,
        video,
        args.on_error == "stop",
    )
    status = _carry_out(job, args, expected_count(listing, video))
    if is_demo and not args.quiet:
        print(f"the pictures with what was found: {folder.file(DRAWN)}")
    return status


def _carry_out(job: Job, args: argparse.Namespace, total: int | None) -> int:
    left = None if total is None else max(0, total - len(job.folder.done))
    try:
        job.run(Progress(left, args.quiet))
    except KeyboardInterrupt:
        print(f"\n{args.output}: {job.summary.line()}; --resume continues", file=sys.stderr)
        raise
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        raise InputError(
            f"out of memory with --batch-size {args.batch_size or 'auto'}; pass a smaller one, or "
            "auto, and --resume"
        ) from error
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise FileError(
            f"--output is '{args.output}', and {job.summary.images} images are done, but then: "
            f"{error.strerror}; make room, and pass --resume"
        ) from error
    summary = job.summary
    for note in summary.notes:
        print(note, file=sys.stderr)
    if summary.unknown:
        print(
            f"{count(summary.unknown, 'image')} left out of the coco files: not in --annotations",
            file=sys.stderr,
        )
    if not args.quiet:
        print(f"{args.output}: {summary.line()}")
        if warning := getattr(job.predictor.detector, "never_cut", ""):
            print(warning, file=sys.stderr)
    if summary.failed:
        print(f"{job.folder.file('failed.txt')} says what could not be read", file=sys.stderr)
    return 1 if summary.failed else 0


def _model_and_sources(args: argparse.Namespace) -> tuple[str, list[str]]:
    """The folder of a training, "" where ``--config-file`` is given; and the sources."""
    words = list(args.sources)
    if args.config_file:
        if not args.weights:
            raise InputError("--weights is missing: the checkpoint that goes with --config-file")
        return "", words
    if len(words) < 2:
        raise InputError(
            f"SOURCE is missing after MODEL '{words[0]}'; name a picture, a video or a folder"
        )
    model = words[0]
    if os.path.isfile(model) and not is_export(model):
        raise InputError(
            f"MODEL is '{model}', a file; give the OUTPUT_DIR of a training, or an exported file, "
            "or --config-file and --weights"
        )
    return model, words[1:]


def _settings(args: argparse.Namespace, thresholds: float | Thresholds | None) -> dict[str, Any]:
    """What results depend on beside the model, so that ``--resume`` mixes nothing."""
    names = ["nms_thresh", "max_dets", "classes", "draw", "crops", "no_labels"]
    names += ["every", "start", "end", "agnostic", "size", "precision"]
    names += ["tile", "tile_overlap", "tile_full_image", "tile_merge", "merge_thresh", "tta"]
    options = {name.replace("_", "-"): getattr(args, name) for name in names}
    given: Any = thresholds.of_class if isinstance(thresholds, Thresholds) else thresholds
    return {**options, "score-thresh": given, "format": sorted(args.format)}


def _video_options(args: argparse.Namespace) -> VideoOptions:
    start = None if args.start is None else seconds_of(args.start)
    end = None if args.end is None else seconds_of(args.end)
    if start is not None and end is not None and end <= start:
        raise InputError(f"--end is {args.end}, not after --start {args.start}")
    return VideoOptions(args.every, start, end)


def _clip(args: argparse.Namespace, listing: Listing) -> Clip | None:
    if not args.video_out:
        return None
    return Clip(args.video_out, args.fps or frame_rate(listing, args.every))


def _class_indices(names: list[str], known: list[str]) -> frozenset[int] | None:
    for name in names:
        if name not in known:
            hint = did_you_mean(name, known) or f" It has {listed(known)}."
            raise ConfigError(f"--classes names '{name}', which the model does not know.{hint}")
    return frozenset(known.index(name) for name in names) if names else None


def _list(listing: Listing) -> int:
    for note in listing.notes:
        print(note, file=sys.stderr)
    number = 0
    for entry in listing:
        number += 1
        shown = entry.path if entry.path.isprintable() else ascii(entry.path)
        print(shown if entry.kind == "picture" else f"{shown} ({entry.kind})")
    print(f"{number} would be read", file=sys.stderr)
    return 0
