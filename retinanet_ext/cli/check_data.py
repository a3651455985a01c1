"""``retinanet-ext check-data``: what is wrong with a dataset, in which file, and a cleaned copy."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import build_anchor_generator, build_backbone

from ..boxes import AnchorLevel
from ..config import get_cfg, load_config_file
from ..data.datasets.register import register_builtin_datasets
from ..data.doctor import (
    DatasetTable,
    InputSize,
    LoadedTable,
    clean,
    examine,
    format_report,
    load_table,
    read_images,
    report_as_json,
    to_coco,
    write_json,
)
from .common import add_data_root

__all__ = ["add_parser", "anchor_levels", "run"]

STRIDES = (8, 16, 32, 64, 128)  # of P3 to P7, where no config says otherwise
FAILED = 2  # also the status of errors in the data; 1 would say that there are warnings only


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Add the command and its options."""
    parser = subparsers.add_parser(
        "check-data",
        help="find faults in annotations and images",
        description="Check every annotation (with --images every image too) of a training set, a "
        "validation set or both. Exit status: 0 nothing found, 1 warnings, 2 errors.",
    )
    what = (
        "COCO json, folder of VOC xml, YOLO data.yaml or CSV, with the folder of its images where "
        "that cannot be guessed; or the name of a registered dataset"
    )
    parser.add_argument("--train", metavar="ANN[:IMAGES]", help=what)
    parser.add_argument("--val", metavar="ANN[:IMAGES]", help="the same for validation")
    parser.add_argument(
        "--classes", default="", metavar="FILE", help="class names where VOC or CSV list none"
    )
    parser.add_argument(
        "--config-file",
        metavar="FILE",
        help="takes input size, anchors and (without --train and --val) the datasets from it "
        "(default: the paper's)",
    )
    parser.add_argument("--images", action="store_true", help="decode every image too")
    parser.add_argument("--json", metavar="FILE", help="write the whole report to FILE")
    parser.add_argument(
        "--fix",
        metavar="OUT.json",
        help="write a cleaned copy of the training set (of --val if it is alone) and the list of "
        "changes, OUT.changes.json; the original stays as it is",
    )
    parser.add_argument("--force", action="store_true", help="overwrite the files of --fix")
    add_data_root(parser)
    return parser


def run(args: argparse.Namespace) -> int:
    """Print the report and return 0, 1 or 2; 2 also for a mistake on the command line.

    Raises:
        ValueError, KeyError, OSError: such a mistake, with ``--verbose``.
    """
    try:
        return _run(args)
    except (ValueError, KeyError, OSError) as error:
        if getattr(args, "verbose", False):
            raise
        message = error.args[0] if isinstance(error, KeyError) and error.args else error
        print(f"retinanet-ext: error: {message}", file=sys.stderr)
        return FAILED


def anchor_levels(cfg: CfgNode) -> tuple[list[AnchorLevel], int]:
    """The anchors of each level of ``cfg``'s RetinaNet, and what images are padded to.

    Raises:
        ValueError: the anchor generator has no fixed anchors around each location.
    """
    with torch.device("meta"):  # shapes only: no weights are drawn
        backbone = build_backbone(cfg)
    shapes = backbone.output_shape()
    features = [shapes[name] for name in cfg.MODEL.RETINANET.IN_FEATURES]
    return _levels(cfg, features), backbone.size_divisibility or 1


def _run(args: argparse.Namespace) -> int:
    cfg = get_cfg()
    if args.config_file:
        load_config_file(cfg, args.config_file)
    outputs = _check_outputs(args)
    register_builtin_datasets(args.data_root)
    sources = [load_table(*x, cfg, args.classes) for x in _specs(args, cfg)]
    tables = [source.table for source in sources]
    _check_outputs_are_not_sources(outputs, sources)
    facts = read_images(x for table in tables for x in table.files) if args.images else None
    levels, divisor = _anchors(cfg, bool(args.config_file))
    report = examine(tables, _input_size(cfg), levels, facts, divisor)
    print(format_report(report))
    if args.json:
        write_json(args.json, report_as_json(report))
        print(f"{args.json}: the whole report")
    if args.fix:
        val = tables[1] if len(tables) > 1 else None
        print(_write_fixed(args.fix, sources[0], val, facts))
    return report.exit_code


def _specs(args: argparse.Namespace, cfg: CfgNode) -> list[tuple[str, str]]:
    """(what it is called, what names it) of one or two datasets."""
    given = [(name, getattr(args, name)) for name in ("train", "val") if getattr(args, name)]
    if given:
        return given
    if not args.config_file:
        raise ValueError("nothing to check: give --train, --val or --config-file")
    specs = []
    for name, key in (("train", "TRAIN"), ("val", "TEST")):
        names = cfg.DATASETS[key]
        if len(names) > 1:
            raise ValueError(
                f"DATASETS.{key} has {len(names)} datasets {tuple(names)}; name one at a time with "
                f"--{name}"
            )
        specs += [(name, x) for x in names]
    if not specs:
        raise ValueError(f"'{args.config_file}' has no DATASETS; give --train or --val")
    return specs


def _input_size(cfg: CfgNode) -> InputSize:
    """The middle one of the sizes of training."""
    return InputSize(float(np.median(cfg.INPUT.MIN_SIZE_TRAIN)), float(cfg.INPUT.MAX_SIZE_TRAIN))


def _anchors(cfg: CfgNode, has_config: bool) -> tuple[list[AnchorLevel], int]:
    if has_config:
        return anchor_levels(cfg)
    cfg.MODEL.ANCHOR_GENERATOR.NAME = "RetinaNetAnchorGenerator"
    return _levels(cfg, [ShapeSpec(stride=x) for x in STRIDES]), 32


def _levels(cfg: CfgNode, features: list[ShapeSpec]) -> list[AnchorLevel]:
    generator = build_anchor_generator(cfg, features)
    cells = [x.detach().numpy() for x in getattr(generator, "cell_anchors", ())]
    if not cells or any(x.ndim != 2 or x.shape[1] != 4 for x in cells):
        raise ValueError(
            f"MODEL.ANCHOR_GENERATOR.NAME is '{cfg.MODEL.ANCHOR_GENERATOR.NAME}', which has no "
            "cell_anchors of four numbers; check-data needs DefaultAnchorGenerator, "
            "RetinaNetAnchorGenerator or one derived from them"
        )
    return [
        AnchorLevel(float(stride), x, float(generator.offset))
        for stride, x in zip(generator.strides, cells, strict=True)
    ]


def _changes_file(fixed: str) -> str:
    return str(Path(fixed).with_suffix(".changes.json"))


def _check_outputs(args: argparse.Namespace) -> list[str]:
    """The files to write; all of them can be written.

    Raises:
        FileExistsError, FileNotFoundError, ValueError: one cannot.
    """
    outputs = [args.json] if args.json else []
    if args.fix:
        if Path(args.fix).suffix != ".json":
            raise ValueError(f"--fix is '{args.fix}', but must end in .json")
        outputs += [args.fix, _changes_file(args.fix)]
    for path in outputs:
        if path != args.json and os.path.exists(path) and not args.force:
            raise FileExistsError(f"'{path}' exists; name another file or pass --force")
        if not os.path.isdir(os.path.dirname(path) or "."):
            raise FileNotFoundError(f"no folder for '{path}'")
    return outputs


def _check_outputs_are_not_sources(outputs: list[str], sources: list[LoadedTable]) -> None:
    for path in outputs:
        for source in sources:
            if source.json_file and os.path.realpath(path) == os.path.realpath(source.json_file):
                raise FileExistsError(f"'{path}' is one of the datasets, which are never changed")


def _write_fixed(output: str, source: LoadedTable, val: DatasetTable | None, facts: Any) -> str:
    if source.json_file:
        with open(source.json_file, encoding="utf-8") as file:
            content = json.load(file)
    else:
        content = to_coco(source.table)
    root = source.image_root if source.json_file else os.sep  # the paths of to_coco are absolute
    fixed, changes = clean(content, source.json_file or source.table.source, root, val, facts)
    write_json(output, fixed)
    write_json(_changes_file(output), [dataclasses.asdict(x) for x in changes])
    return (
        f"{output}: cleaned copy of '{source.table.name}', {len(changes)} change(s) listed in "
        f"{_changes_file(output)}"
    )
