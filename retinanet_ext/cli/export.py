"""``retinanet-ext export``: a trained model as a file for other programs, verified."""

from __future__ import annotations

import argparse
import os
import re
import tempfile
from typing import Any

from ..errors import InputError
from ..export import ExportOptions, export
from ..export.files.write import EXPORTERS
from ..export.graph.detector import HEADS
from ..inference.exported import is_export
from ..inference.exported.sidecar import SUFFIXES
from .common import config_options
from .options.export import (
    NUM_PICTURES,
    add_int8_options,
    ap_on_test_set,
    calibration_pictures,
    test_pictures,
)
from .options.model import add_trailing_opts, check_one_model, load_model_cfg

__all__ = ["add_parser", "run"]


def add_parser(subparsers: Any, name: str) -> argparse.ArgumentParser:
    """Add the command and its options."""
    parser = subparsers.add_parser(
        name,
        parents=[config_options(required=False, what="a config, in place of MODEL", opts=False)],
        description="Write a trained model as a file for ONNX Runtime, OpenVINO or PyTorch, with "
        "what describes, feeds and runs it, and compare it with PyTorch. Exit status: 0; 1 if the "
        "file differs, which is then called .rejected; 2 for a mistake in the command.",
    )
    parser.add_argument("model", nargs="?", default="", metavar="MODEL", help="OUTPUT_DIR of a run")
    parser.add_argument(
        "--weights",
        default="",
        metavar="FILE",
        help="checkpoint (default: MODEL's final one); or best",
    )
    parser.add_argument(
        "--output",
        default="",
        metavar="DIR",
        help="folder (default: MODEL/export/...)",
    )
    parser.add_argument("--format", choices=tuple(SUFFIXES), default="onnx", help="default: onnx")
    parser.add_argument(
        "--head",
        choices=HEADS,
        help="how far the file goes: the head's outputs (default with int8), boxes before NMS, or "
        "detections (default)",
    )
    parser.add_argument(
        "--batch",
        type=_batch,
        default=None,
        metavar="N|dynamic",
        help="pictures at once (default: dynamic)",
    )
    parser.add_argument(
        "--size",
        type=_size,
        default=None,
        metavar="HxW|dynamic",
        help="of the input in pixels (default: dynamic)",
    )
    parser.add_argument("--opset", type=int, default=18, metavar="N", help="of ONNX (default: 18)")
    parser.add_argument(
        "--exporter",
        choices=EXPORTERS,
        default=EXPORTERS[0],
        help="how PyTorch makes the ONNX: dynamo (default), or torchscript, the older way, which "
        "takes seconds where that one takes a minute",
    )
    parser.add_argument(
        "--verify",
        nargs="+",
        default=[],
        metavar="PICTURE",
        help=f"to compare on (default: {NUM_PICTURES} of the test set, else made-up ones)",
    )
    add_int8_options(parser)
    parser.add_argument("--overwrite", action="store_true", help="replace what is in --output")
    add_trailing_opts(parser)
    parser.set_defaults(run=run)
    return parser


def run(args: argparse.Namespace) -> int:
    """Export and verify.

    Raises:
        UserError: names the option, its value and what can be done.
    """
    _check_model(args)
    cfg = load_model_cfg(args, args.model)
    head = args.head or ("raw" if args.precision == "int8" else "nms")
    name = f"{args.format}-{head}" + ("-int8" if args.precision == "int8" else "")
    options = ExportOptions(
        output=args.output or os.path.join(args.model, "export", name),
        format=args.format,
        head=head,
        batch=args.batch,
        size=args.size,
        opset=args.opset,
        exporter=args.exporter,
        pictures=args.verify or test_pictures(cfg),
        overwrite=args.overwrite,
        precision=args.precision,
        calibrate=calibration_pictures(cfg, args),
        calibrate_named=args.calibrate,
        force=args.force,
    )
    with tempfile.TemporaryDirectory() as scratch:
        export(cfg, options, measure=ap_on_test_set(cfg, scratch) if args.calibrate else None)
    return 0


def _check_model(args: argparse.Namespace) -> None:
    check_one_model(args)
    if args.model and is_export(args.model):
        raise InputError(f"MODEL is '{args.model}', an export; give the run that it was made of")
    if args.config_file and not (args.weights and args.output):
        raise InputError("--config-file needs --weights, the model's checkpoint, and --output")


def _batch(text: str) -> int | None:
    if text == "dynamic":
        return None
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number from 1, nor dynamic")
    return int(text)


def _size(text: str) -> tuple[int, int] | None:
    if text == "dynamic":
        return None
    match = re.fullmatch(r"(\d+)[xX](\d+)", text)
    if match is None or min(int(x) for x in match.groups()) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not HEIGHTxWIDTH in pixels, nor dynamic")
    return int(match[1]), int(match[2])
