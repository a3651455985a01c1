"""``retinanet-ext check-data``: what is wrong with a dataset, in which file, and a cleaned copy."""

from __future__ import annotations

import argparse
import dataclasses
import os
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog
from detectron2.layers import ShapeSpec

from ...anchor_tools.levels import anchor_levels, levels_of
from ...boxes import AnchorLevel
from ...data.datasets.command_line import has_own_val, split_flag
from ...data.datasets.entries import extra_entries
from ...data.doctor import (
    DatasetTable,
    InputSize,
    LoadedTable,
    add_reader_warnings,
    clean,
    examine,
    format_report,
    load_table,
    read_images,
    report_as_json,
    to_coco,
    why_refused,
    write_json,
)
from ...data.formats.places import tail
from ...data.formats.plain_text import read_json
from ...errors import ExistsError, InputError, count
from ..common import config_options, load_cfg
from ..outputs import check_free, check_writable

__all__ = ["add_parser", "run"]

STRIDES = (8, 16, 32, 64, 128)  # of P3 to P7, where no config says otherwise


def add_parser(subparsers: Any, name: str) -> argparse.ArgumentParser:
    """Add the command and its options."""
    parser = subparsers.add_parser(
        name,
        parents=[
            config_options(
                required=False,
                what="takes input size, anchors and (without --train and --val) the datasets from "
                "it (default: the paper's)",
            )
        ],
        description="Check every annotation (with --images every image too) of a training set, a "
        "validation set or both. Exit status: 0 nothing found, 1 warnings, 2 errors.",
    )
    what = (
        "COCO json, folder of VOC xml, YOLO data.yaml or CSV, with the folder of its images where "
        "that cannot be guessed; or the name of a registered dataset"
    )
    train = parser.add_mutually_exclusive_group()
    train.add_argument("--data", metavar="FOLDER", help="what train --data takes: same as --train")
    train.add_argument("--train", metavar="ANN[:IMAGES]", help=what)
    parser.add_argument("--val", metavar="ANN[:IMAGES]", help="the same for validation")
    parser.add_argument(
        "--classes", default="", metavar="FILE", help="class names where VOC or CSV list none"
    )
    parser.add_argument("--images", action="store_true", help="decode every image too")
    parser.add_argument("--json", metavar="FILE", help="write the whole report to FILE")
    parser.add_argument(
        "--fix",
        metavar="OUT.json",
        help="write a cleaned copy of the training set (of --val without --train) and the list of "
        "changes, OUT.changes.json; the original stays as it is",
    )
    parser.add_argument("--force", action="store_true", help="overwrite the files of --fix")
    parser.set_defaults(run=run)
    return parser


def run(args: argparse.Namespace) -> int:
    """Print the report and return 0, 1 or 2.

    Raises:
        UserError: names the option or the file, and what can be done.
    """
    cfg = load_cfg(args)
    args.train = args.data or args.train
    outputs = _check_outputs(args)
    sources = [load_table(*x, cfg, args.classes) for x in _specs(args, cfg)]
    tables = [source.table for source in sources]
    _check_outputs_are_not_sources(outputs, sources)
    facts = {path: fact for source in sources for path, fact in source.facts.items()}
    if args.images:
        files = (x for table in tables if not table.no_images for x in table.files)
        facts |= read_images(files, cfg.INPUT.SIXTEEN_BIT)
    levels, divisor = _anchors(cfg, bool(args.config_file))
    loaded = {id(source.table): source for source in sources}
    report = examine(
        tables,
        _input_size(cfg),
        levels,
        facts,
        divisor,
        lambda table: why_refused(loaded[id(table)]),
    )
    for source in sources:
        add_reader_warnings(report, source)
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
    if args.train and not args.val and _has_own_val(args.train, cfg):
        given.append(("val", args.train))
    if given:
        return given
    if not args.config_file:
        raise InputError("nothing to check: give --train, --val or --config-file")
    specs = []
    for name, key in (("train", "TRAIN"), ("val", "TEST")):
        names = cfg.DATASETS[key]
        if len(names) > 1:
            raise InputError(
                f"DATASETS.{key} has {len(names)} datasets {tuple(names)}; name one at a time with "
                f"--{name}"
            )
        specs += [(name, x) for x in names]
    if not specs:
        raise InputError(f"'{args.config_file}' has no DATASETS; give --train or --val")
    return specs


def _has_own_val(spec: str, cfg: CfgNode) -> bool:
    """Whether ``--train`` holds the validation set that a training would take, too."""
    known = [x.name for x in extra_entries(cfg)]
    if spec in known or spec in DatasetCatalog or not os.path.exists(split_flag(spec)[0]):
        return False
    return has_own_val(spec)


def _input_size(cfg: CfgNode) -> InputSize:
    """The middle one of the sizes of training."""
    return InputSize(float(np.median(cfg.INPUT.MIN_SIZE_TRAIN)), float(cfg.INPUT.MAX_SIZE_TRAIN))


def _anchors(cfg: CfgNode, has_config: bool) -> tuple[list[AnchorLevel], int]:
    if has_config:
        return anchor_levels(cfg)
    cfg.MODEL.ANCHOR_GENERATOR.NAME = "RetinaNetAnchorGenerator"
    return levels_of(cfg, [ShapeSpec(stride=x) for x in STRIDES]), 32


def _changes_file(fixed: str) -> str:
    return str(Path(fixed).with_suffix(".changes.json"))


def _check_outputs(args: argparse.Namespace) -> list[str]:
    """The files to write; all of them can be written.

    Raises:
        UserError: one cannot.
    """
    outputs = [args.json] if args.json else []
    if args.fix:
        if Path(args.fix).suffix != ".json":
            raise InputError(f"--fix is '{args.fix}', but must end in .json")
        outputs += [args.fix, _changes_file(args.fix)]
    for path in outputs:
        option = "--json" if path == args.json else "--fix"
        check_writable(option, path, make_folder=False)
        if option == "--fix":
            check_free(option, path, args.force)
    return outputs


def _check_outputs_are_not_sources(outputs: list[str], sources: list[LoadedTable]) -> None:
    for path in outputs:
        for source in sources:
            if source.json_file and os.path.realpath(path) == os.path.realpath(source.json_file):
                raise ExistsError(f"'{path}' is one of the datasets, which are never changed")


def _write_fixed(output: str, source: LoadedTable, val: DatasetTable | None, facts: Any) -> str:
    if source.json_file:
        content = read_json(source.json_file)
        for image in content["images"]:
            if isinstance(image, dict) and isinstance(image.get("file_name"), str):
                image["file_name"] = tail(image["file_name"], source.dropped)
    else:
        content = to_coco(source.table)
    root = source.image_root if source.json_file else os.sep  # the paths of to_coco are absolute
    path, is_xywh = source.json_file or source.table.source, not source.json_file
    fixed, changes = clean(content, path, root, val, facts, is_xywh)
    write_json(output, fixed)
    write_json(_changes_file(output), [dataclasses.asdict(x) for x in changes])
    return (
        f"{output}: cleaned copy of '{source.table.name}', {count(len(changes), 'change')} listed "
        f"in {_changes_file(output)}"
    )
