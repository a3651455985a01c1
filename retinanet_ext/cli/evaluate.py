"""``retinanet-ext evaluate``: of a checkpoint, as ``train_net.py --eval-only``, or of a file of
detections, for which no model is needed.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from ..errors import ExistsError, InputError
from ..evaluation.analysis.results import as_json
from ..evaluation.analysis.thresholds import write_thresholds
from ..evaluation.predictions import evaluate_predictions
from ..evaluation.predictions.text import as_text
from ..files import dump_json, write_text
from ..inference.exported import is_export
from . import train
from .common import load_cfg
from .options.numbers import positive_int
from .outputs import check_writable

__all__ = ["add_parser"]

IOU = 0.5
DESCRIPTION = (
    "Evaluate MODEL.WEIGHTS, or with --resume the last checkpoint in OUTPUT_DIR, or with --model "
    "an exported file, on DATASETS.TEST; or, with --predictions and --annotations, a file of "
    "detections without a model."
)


def add_parser(subparsers: Any, name: str) -> argparse.ArgumentParser:
    """Add the command, with the options of ``train_net.py`` and those for a file."""
    parser = train.add_parser(subparsers, name)
    parser.description = DESCRIPTION
    parser.add_argument(
        "--model",
        default="",
        metavar="FILE",
        help="an exported file or its folder, in the place of --config-file (results go to "
        "evaluation/ beside it, unless OUTPUT_DIR is given)",
    )
    group = parser.add_argument_group("a file of detections, without a model")
    group.add_argument(
        "--predictions", metavar="FILE", help="json list of COCO results, boxes as XYWH in pixels"
    )
    group.add_argument("--annotations", metavar="FILE", help="COCO json of the ground truth")
    group.add_argument("--json", metavar="FILE", help="write every number to FILE")
    group.add_argument(
        "--thresholds",
        metavar="FILE",
        help="write the score threshold of the highest F1 of each class to FILE, a yaml",
    )
    group.add_argument(
        "--iou",
        type=float,
        metavar="X",
        help=f"from which a detection finds an object, 0.1 to 1 (default: {IOU}); AP is COCO's",
    )
    group.add_argument(
        "--max-dets",
        type=positive_int,
        metavar="N",
        help="detections of each image and class that count (default: TEST.DETECTIONS_PER_IMAGE)",
    )
    parser.set_defaults(run=run)
    return parser


def run(args: argparse.Namespace) -> int:
    """Evaluate what the options name, and return 0.

    Raises:
        UserError: names the option or the file, and what can be done.
        TrainingFailed: as ``train_net.py --eval-only``.
    """
    if args.predictions is None:
        _refuse_options_of_a_file(args)
        if args.model:
            _check_export(args)
        return train.start(args)
    if args.annotations is None:
        raise InputError(
            "--predictions needs the ground truth beside it: --annotations FILE, a COCO json"
        )
    _refuse_options_of_a_model(args)
    outputs = {"--json": args.json, "--thresholds": args.thresholds}
    for option, path in outputs.items():
        if path is not None:
            _check_output(option, path, args)
    max_dets = args.max_dets or load_cfg(args).TEST.DETECTIONS_PER_IMAGE
    iou = IOU if args.iou is None else args.iou
    found = evaluate_predictions(args.predictions, args.annotations, iou, max_dets)
    print(as_text(found.analysis, found.remarks))
    if args.json is not None:
        write_text(args.json, dump_json(as_json(found.analysis), indent=1))
        print(f"{args.json}: every number")
    if args.thresholds is not None:
        name = Path(args.annotations).name
        write_thresholds(args.thresholds, found.analysis.classes, iou, name)
        print(f"{args.thresholds}: score thresholds of the classes")
    return 0


def _check_export(args: argparse.Namespace) -> None:
    """Raise InputError unless ``--model`` is an export, and the only model."""
    if not is_export(args.model):
        raise InputError(
            f"--model is '{args.model}', which is no exported file; name model.onnx or its folder, "
            "or a run's config by --config-file RUN/config.yaml"
        )
    for name in ("config_file", "resume", "dry_run"):
        if getattr(args, name):
            raise InputError(
                f"--{name.replace('_', '-')} does not go with --model, an exported file; leave one "
                "of them out"
            )


def _refuse_options_of_a_file(args: argparse.Namespace) -> None:
    for name in ("annotations", "json", "thresholds", "iou", "max_dets"):
        if getattr(args, name) is not None:
            raise InputError(
                f"--{name.replace('_', '-')} belongs to a file of detections; give it with "
                "--predictions FILE (an evaluation of a model writes coco_instances_results.json)"
            )


def _refuse_options_of_a_model(args: argparse.Namespace) -> None:
    for name in ("model", "train", "val", "resume", "dry_run"):
        if getattr(args, name):
            raise InputError(
                f"--{name.replace('_', '-')} says how a model is evaluated, and --predictions "
                "needs none; leave one of them out"
            )


def _check_output(option: str, path: str, args: argparse.Namespace) -> None:
    check_writable(option, path, make_folder=False)
    for source in (args.predictions, args.annotations):
        if os.path.realpath(path) == os.path.realpath(source):
            raise ExistsError(f"{option} is '{path}', which is read; name another file")
