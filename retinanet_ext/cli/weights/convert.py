"""``retinanet-ext convert``: a trained RetinaNet of another toolkit, and back."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from ...config import get_cfg, load_config_file
from ...config.load import flatten
from ...data.formats.table import Inputs
from ...data.formats.text import read_class_file
from ...errors import InputError
from ...weights.convert.run import SOURCES, TARGETS, read_source, write_target
from ..common import debug_options

__all__ = ["add_parser", "run"]


def add_parser(subparsers: Any, name: str) -> argparse.ArgumentParser:
    """Add the command and its options."""
    parser = subparsers.add_parser(
        name,
        parents=[debug_options()],
        description="Turn a RetinaNet that torchvision, mmdet or ODTK trained into one of this "
        "package, with the config that makes its numbers equal, or one of this into theirs.",
    )
    parser.add_argument("input", metavar="IN", help="the file of weights")
    parser.add_argument("output", metavar="OUT", help="ends with .pth; OUT.yaml is put beside it")
    parser.add_argument("--from", dest="source", choices=("auto", *SOURCES), default="auto")
    parser.add_argument("--to", dest="target", choices=TARGETS, default="detectron2")
    parser.add_argument("--classes", default="", metavar="FILE", help="names, one a line")
    parser.add_argument(
        "--config-file",
        default="",
        metavar="FILE",
        help="of weights of Detectron2 (default: IN.yaml, or config.yaml beside IN)",
    )
    parser.add_argument(
        "--norm-eps",
        type=float,
        metavar="X",
        help="what torchvision's batch norms add to the variance, where it is not found out",
    )
    parser.add_argument(
        "--style", default="", metavar="NAME", help="of mmdet's ResNet: pytorch or caffe"
    )
    parser.set_defaults(run=run)
    return parser


def run(args: argparse.Namespace) -> int:
    """Write the files, and print what they are and what is not exact.

    Raises:
        UserError: names the tensors, the key or the option.
    """
    if os.path.realpath(args.input) == os.path.realpath(args.output):
        raise InputError(f"IN and OUT are both {args.input}; give OUT another name")
    found = read_source(
        args.input,
        args.source,
        classes=read_class_file(args.classes, Inputs()) if args.classes else (),
        config=_config_of(args),
        norm_eps=args.norm_eps,
        style=args.style,
    )
    notes = write_target(found, args.output, args.target)
    print(f"{args.output}: {len(found.model)} tensors, {len(found.classes) or 'unnamed'} classes")
    for note in [*found.notes, *notes]:
        print(f"- {note}")
    return 0


def _config_of(args: argparse.Namespace) -> dict[str, Any] | None:
    """The keys of the model in IN, None where there is no config."""
    path = Path(args.input)
    choices = [Path(args.config_file)] if args.config_file else []
    choices += [path.with_suffix(".yaml"), path.with_name("config.yaml")]
    for choice in choices:
        if args.config_file or choice.is_file():
            cfg = get_cfg()
            load_config_file(cfg, str(choice))
            return dict(flatten(cfg))
    return None
