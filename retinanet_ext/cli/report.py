"""``retinanet-ext report``: one html page about what a detector does wrong, and what to try."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode

from ..config import get_cfg, load_config_file
from ..config.load import merge_opts
from ..data.datasets.by_path import register_extra_datasets
from ..data.datasets.command_line import split_flag
from ..data.datasets.register import register_builtin_datasets
from ..errors import ExistsError, InputError, MissingFileError, UserError, listed
from ..evaluation.predictions.reading import read_predictions
from ..inference.run_folder import CONFIG, weights_of_run
from ..report import Other, subject_of_files, write_report
from .common import check_registered, config_options, load_cfg, pairs
from .options.model import add_trailing_opts
from .options.report import add_report_options, report_options
from .outputs import check_writable
from .run_report import PAGE, other_run, report_on, said_of

__all__ = ["add_parser", "run"]

DESCRIPTION = (
    "Write one html page that says which classes, sizes and pictures go wrong, in which way, and "
    "what to try: of a training (its OUTPUT_DIR), or of a file of detections of any detector."
)

PAGES = (".html", ".htm")


def add_parser(subparsers: Any, name: str) -> argparse.ArgumentParser:
    """Add the command and its options."""
    parser = subparsers.add_parser(
        name,
        parents=[
            config_options(
                required=False, what="with --predictions, for TEST.DETECTIONS_PER_IMAGE", opts=False
            )
        ],
        description=DESCRIPTION,
    )
    parser.add_argument("model", nargs="?", default="", metavar="RUN", help="OUTPUT_DIR of a run")
    parser.add_argument(
        "--predictions", metavar="FILE", help="json list of COCO results, boxes as XYWH in pixels"
    )
    parser.add_argument(
        "--annotations", metavar="FILE[:IMAGES]", help="COCO json of the ground truth, and images"
    )
    parser.add_argument(
        "--compare",
        metavar="OTHER",
        help="a run, or a json of detections of the same images, to compare with",
    )
    parser.add_argument(
        "--intersect",
        action="store_true",
        help="with --compare: look only at the images that both have",
    )
    parser.add_argument(
        "--output",
        default="",
        metavar="FILE",
        help="the page (default: report.html, of a run beside its detections); thresholds.yaml is "
        "written beside it",
    )
    parser.add_argument(
        "--json", default="", metavar="FILE", help="default: report.json beside the page"
    )
    parser.add_argument(
        "--no-model",
        action="store_true",
        help="of a run: tell why objects were missed from its detections only, without running it",
    )
    add_report_options(parser)
    add_trailing_opts(parser)
    parser.set_defaults(run=run)
    return parser


def run(args: argparse.Namespace) -> int:
    """Write the report and return 0.

    Raises:
        UserError: names the option or the file, and what can be done.
    """
    if bool(args.model) == (args.predictions is not None):
        raise InputError(
            "name what the report is about: the OUTPUT_DIR of a training, or --predictions FILE "
            "with --annotations FILE"
        )
    if args.intersect and args.compare is None:
        raise InputError("--intersect says how to compare; give it with --compare OTHER")
    for option, path in (("--output", args.output), ("--json", args.json)):
        if path:
            check_writable(option, path)
    if args.model:
        return _of_run(args)
    if args.annotations is None:
        raise InputError(
            "--predictions needs the ground truth beside it: --annotations FILE, a COCO json"
        )
    return _of_files(args)


def _check_page(path: str) -> None:
    if path and Path(path).suffix.lower() not in PAGES:
        raise InputError(
            f"--output is '{path}', and the report is a page; name it .html, such as {PAGE}"
        )


def _of_files(args: argparse.Namespace) -> int:
    output = args.output or PAGE
    read = [args.predictions, split_flag(args.annotations)[0]]
    if args.compare is not None and not os.path.isdir(args.compare):
        read.append(args.compare)
    for option, path in (("--output", output), ("--json", args.json)):
        if path and any(os.path.realpath(path) == os.path.realpath(x) for x in read):
            raise ExistsError(f"{option} is '{path}', which is read; name another file")
    _check_page(args.output)
    options = report_options(args, load_cfg(args).TEST.DETECTIONS_PER_IMAGE)
    subject = subject_of_files(args.predictions, args.annotations)
    other = _other(args, subject.name, "")
    written = write_report(subject, output, args.json, options, None, other, args.intersect)
    print("\n".join(said_of(written)))
    return 0


def _of_run(args: argparse.Namespace) -> int:
    if args.annotations is not None:
        raise InputError("--annotations belongs to --predictions; a run knows its test sets")
    _check_page(args.output)
    cfg = _run_cfg(args)
    options = report_options(args, cfg.TEST.DETECTIONS_PER_IMAGE)
    names = cfg.DATASETS.TEST
    if not names:
        raise InputError(
            f"the run in '{args.model}' has no test set (DATASETS.TEST is empty); evaluate it on "
            "one with --val, or give --predictions and --annotations"
        )
    if len(names) > 1 and (args.output or args.json):
        raise InputError(
            f"the run has {len(names)} test sets ({listed(names, 5)}), and --output and --json "
            "name one file; leave them out, and each report goes beside its detections"
        )
    register_extra_datasets(cfg, names)
    for name in names:
        check_registered(name, "Import the module that registers it with --import")
        other = _other(args, name, args.model)
        written = report_on(
            cfg,
            name,
            options,
            args.output,
            args.json,
            other,
            args.intersect,
            0 if args.no_model else sys.maxsize,
        )
        print("\n".join(said_of(written)))
    return 0


def _run_cfg(args: argparse.Namespace) -> CfgNode:
    """The config of a run, whose weights need not be there."""
    if args.imports:  # engine takes a while to load
        from ..engine.user_modules import import_modules

        import_modules(args.imports)
    path = os.path.join(args.model, CONFIG)
    if not os.path.isfile(path):
        raise MissingFileError(
            f"'{args.model}' holds no {CONFIG}, so it is not the OUTPUT_DIR of a training; give "
            "that, or --predictions FILE with --annotations FILE"
        )
    cfg = get_cfg()
    load_config_file(cfg, path, allow_unsafe=args.allow_unsafe_yaml)
    merge_opts(cfg, pairs(args.opts))
    cfg.OUTPUT_DIR = args.model
    cfg.MODEL.DEVICE = args.device or cfg.MODEL.DEVICE
    try:
        cfg.MODEL.WEIGHTS = weights_of_run(args.model)
    except UserError:
        cfg.MODEL.WEIGHTS = ""
    register_builtin_datasets(args.data_root)
    return cfg


def _other(args: argparse.Namespace, dataset: str, this_run: str) -> Other | None:
    """What ``--compare`` names."""
    if args.compare is None:
        return None
    if os.path.isdir(args.compare):
        return other_run(args.compare, dataset, this_run)
    relative = not os.path.isabs(args.compare) and os.pardir not in args.compare.split(os.sep)
    name = args.compare if relative else os.path.basename(args.compare)
    return Other(name, read_predictions(args.compare))
