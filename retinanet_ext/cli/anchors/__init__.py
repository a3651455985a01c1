"""``retinanet-ext anchors``: how well anchors cover a training set, and which would do better."""

from __future__ import annotations

import argparse
import os
from typing import Any

from detectron2.config import CfgNode
from PIL import Image

from ...anchor_tools import count_matches, coverage_report, draw_unmatched, format_coverage_report
from ...anchor_tools.levels import anchor_levels
from ...config import validate_cfg
from ...data.doctor import from_dataset_dicts, write_json
from ...errors import ExistsError
from ..common import load_cfg
from ..outputs import check_free, check_writable
from ..see.pictures import check_picture
from .optimise import check_numbers, optimise
from .options import DESCRIPTION, add_actions
from .training_set import read_records, resized, training_boxes

__all__ = ["add_parser", "run"]


def add_parser(subparsers: Any, name: str) -> argparse.ArgumentParser:
    """Add the command with its two actions."""
    parser: argparse.ArgumentParser = subparsers.add_parser(name, description=DESCRIPTION)
    add_actions(parser, run)
    return parser


def run(args: argparse.Namespace) -> int:
    """Do one of the two actions.

    Raises:
        UserError: names the option, its value and what can be done.
    """
    _check_outputs(args)
    if args.action == "optimise":
        check_numbers(args)
    cfg = load_cfg(args)
    validate_cfg(cfg)
    records, class_names = read_records(cfg, args)
    return (_show if args.action == "show" else optimise)(cfg, args, records, class_names)


def _show(
    cfg: CfgNode, args: argparse.Namespace, records: list[dict[str, Any]], class_names: list[str]
) -> int:
    node = cfg.MODEL.RETINANET
    levels, divisor = anchor_levels(cfg)
    boxes = training_boxes(cfg, args, records, class_names, divisor)
    matches = count_matches(
        boxes,
        levels,
        node.IOU_THRESHOLDS,
        node.IOU_LABELS,
        node.ALLOW_LOW_QUALITY_MATCHES,
        args.num_images,
    )
    report = coverage_report(boxes, levels, node.IN_FEATURES, matches)
    print(format_coverage_report(report))
    if node.ASSIGNER != "IoUAssigner":
        print(f"Matches are by IOU_THRESHOLDS; {node.ASSIGNER}, the config's, has its own rules.")
    if args.json:
        write_json(args.json, report)
        print(f"{args.json}: all numbers")
    if args.picture:
        table = from_dataset_dicts(records, class_names, "train")
        picture = draw_unmatched(
            table,
            resized(cfg, table, divisor),
            levels,
            sixteen_bit=cfg.INPUT.SIXTEEN_BIT,
        )
        if picture is None:
            print(f"{args.picture} is not written: some anchor covers every object")
        else:
            Image.fromarray(picture).save(args.picture)
            print(f"{args.picture}: the objects that no anchor covers, without augmentation")
    return 0


def _check_outputs(args: argparse.Namespace) -> None:
    if args.action == "show":
        if args.json:
            check_writable("--json", args.json, make_folder=False)
        if args.picture:
            check_picture("--picture", args.picture, make_folder=False)
    elif output := args.output:
        check_writable("--output", output, make_folder=False)
        check_free("--output", output, args.force)
        if os.path.realpath(output) == os.path.realpath(args.config_file):
            raise ExistsError(f"--output is --config-file, '{output}'; name another file")
