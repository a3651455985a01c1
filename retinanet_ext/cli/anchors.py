"""``retinanet-ext anchors``: how well anchors cover a training set, and which would do better."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from detectron2.config import CfgNode
from detectron2.config import get_cfg as get_detectron2_cfg
from detectron2.data import DatasetCatalog
from PIL import Image

from ..anchor_tools import (
    METHODS,
    Coverage,
    Search,
    TrainingBoxes,
    compare_sizes,
    count_matches,
    coverage_report,
    draw_unmatched,
    format_coverage_report,
    larger_pictures,
    resized_boxes,
    sampled_boxes,
    search_anchors,
    verdict,
)
from ..anchor_tools.levels import anchor_levels
from ..config import validate_cfg
from ..config.shipped import find_config
from ..data.augment import build_train_mapper
from ..data.datasets.by_path import register_extra_datasets
from ..data.datasets.command_line import name_datasets
from ..data.datasets.register import load_class_names
from ..data.doctor import DatasetTable, from_dataset_dicts, write_json
from ..errors import ExistsError, InputError
from .common import add_training_set, check_registered, config_options, load_cfg
from .outputs import check_free, check_writable
from .see.pictures import check_picture

__all__ = ["add_parser", "run"]


def add_parser(subparsers: Any, name: str) -> argparse.ArgumentParser:
    """Add the command with its two actions."""
    parser = subparsers.add_parser(
        name,
        description="How well the anchors of a config cover the objects of a training set, in "
        "pixels of the network's input, and which anchors would cover them better.",
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    show = actions.add_parser(
        "show", help="best-possible recall, and matches per level", parents=[config_options()]
    )
    _add_data_options(show)
    show.add_argument("--json", metavar="FILE", help="write all numbers to FILE")
    show.add_argument("--picture", metavar="FILE", help="draw the objects that no anchor covers")
    show.add_argument(
        "--num-images",
        type=int,
        default=300,
        metavar="N",
        help="views to match all anchors in, spread evenly; 0 for all (default: 300). Recall is "
        "always that of all",
    )
    optimise = actions.add_parser(
        "optimise", help="better sizes and ratios, as yaml", parents=[config_options()]
    )
    _add_data_options(optimise)
    for flag, what in (("--scales-per-octave", "sizes"), ("--ratios", "aspect ratios")):
        optimise.add_argument(
            flag, type=int, metavar="N", help=f"{what} per level (default: as many as now)"
        )
    optimise.add_argument(
        "--method", choices=METHODS, default=METHODS[0], help=f"(default: {METHODS[0]})"
    )
    optimise.add_argument(
        "--output", metavar="F.yaml", help="write a config on top of --config-file"
    )
    optimise.add_argument("--force", action="store_true", help="overwrite the file of --output")
    return parser


def _add_data_options(parser: argparse.ArgumentParser) -> None:
    add_training_set(parser, default="DATASETS.TRAIN")
    parser.add_argument(
        "--samples",
        type=int,
        default=0,
        metavar="N",
        help="N images at random through training's augmentation (reads them); by default every "
        "image at each of INPUT.MIN_SIZE_TRAIN",
    )
    parser.add_argument("--seed", type=int, default=0, help="(default: 0)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Do one of the two actions.

    Raises:
        UserError: names the option, its value and what can be done.
    """
    _check_outputs(args)
    cfg = load_cfg(args)
    validate_cfg(cfg)
    records, class_names = _read(cfg, args)
    return (_show if args.action == "show" else _optimise)(cfg, args, records, class_names)


def _show(
    cfg: CfgNode, args: argparse.Namespace, records: list[dict[str, Any]], class_names: list[str]
) -> int:
    node = cfg.MODEL.RETINANET
    levels, divisor = anchor_levels(cfg)
    boxes = _boxes(cfg, args, records, class_names, divisor)
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
            _resized(cfg, table, divisor),
            levels,
            sixteen_bit=cfg.INPUT.SIXTEEN_BIT,
        )
        if picture is None:
            print(f"{args.picture} is not written: some anchor covers every object")
        else:
            Image.fromarray(picture).save(args.picture)
            print(f"{args.picture}: the objects that no anchor covers, without augmentation")
    return 0


def _optimise(
    cfg: CfgNode, args: argparse.Namespace, records: list[dict[str, Any]], class_names: list[str]
) -> int:
    levels, divisor = anchor_levels(cfg)
    boxes = _boxes(cfg, args, records, class_names, divisor)
    iou = float(cfg.MODEL.RETINANET.IOU_THRESHOLDS[-1])
    numbers = args.scales_per_octave, args.ratios
    search = search_anchors(boxes, levels, *numbers, args.method, args.seed, iou=iou)
    strides = [x.stride for x in levels]
    print(f"{search.before.boxes} boxes at IoU 0.5: {_describe(search.before)} before")
    found = levels
    if search.shape is not None:
        print(f"{_describe(search.after)} after")
        found = search.shape.levels(strides, levels[0].offset)
        print(compare_sizes(search))
    print(verdict(search, iou))
    table = from_dataset_dicts(records, class_names, "train")
    sizes = cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.MAX_SIZE_TRAIN
    if advice := larger_pictures(table, boxes, levels, found, *sizes, divisor, iou):
        print(advice)
    if search.shape is None:
        if args.output:
            print(f"{args.output} is not written: '{args.config_file}' is as good")
        return 0
    print()
    snippet = _snippet(cfg, search, strides)
    print(yaml.safe_dump(snippet, sort_keys=False, default_flow_style=None).rstrip())
    if args.output:
        _write_config(args, snippet, search)
        print(f"\n{args.output}: a config with these anchors")
    return 0


def _describe(coverage: Coverage) -> str:
    return (
        f"best-possible recall {coverage.recall_at_50:.2%}, "
        f"mean best IoU {coverage.mean_best_iou:.3f}"
    )


def _snippet(cfg: CfgNode, search: Search, strides: Sequence[float]) -> dict[str, Any]:
    assert search.shape is not None, "there is nothing to write"
    node = cfg.MODEL.ANCHOR_GENERATOR
    keys: dict[str, Any] = {
        "NAME": "RetinaNetAnchorGenerator",
        "OCTAVE_BASE_SIZES": [round(x, 4) for x in search.shape.octave_base_sizes(strides)],
        "SCALES_PER_OCTAVE": search.shape.scales,
        "ASPECT_RATIOS": [list(search.shape.ratios)],
    }
    if node.SCALES_OF_LEVELS:
        keys["SCALES_OF_LEVELS"] = []
    default_sizes = get_detectron2_cfg().MODEL.ANCHOR_GENERATOR.SIZES
    if default_sizes != node.SIZES:  # another generator's key, which would now contradict
        keys["SIZES"] = default_sizes
    return {"MODEL": {"ANCHOR_GENERATOR": keys}}


def _write_config(args: argparse.Namespace, snippet: dict[str, Any], search: Search) -> None:
    folder = os.path.dirname(os.path.abspath(args.output))
    base = {"_BASE_": os.path.relpath(find_config(args.config_file), folder)}
    body = yaml.safe_dump(base | snippet, sort_keys=False, default_flow_style=None)
    head = (
        f"# By retinanet-ext anchors optimise, seed {args.seed}: {_describe(search.after)}\n"
        f"# (before: {_describe(search.before)}).\n"
    )
    Path(args.output).write_text(head + body, encoding="utf-8")


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


def _read(cfg: CfgNode, args: argparse.Namespace) -> tuple[list[dict[str, Any]], list[str]]:
    """Dicts and class names that training would get, class rules and split included."""
    name_datasets(cfg, args.train, None, args.classes)
    names = [args.dataset] if args.dataset else list(cfg.DATASETS.TRAIN)
    if not names:
        raise InputError(f"'{args.config_file}' has no DATASETS.TRAIN; give --train or --dataset")
    register_extra_datasets(cfg, names)
    records: list[dict[str, Any]] = []
    class_names = None
    for name in names:
        check_registered(name, "Give your own as --train ANNOTATIONS[:IMAGE_DIR]")
        records += DatasetCatalog.get(name)
        own = load_class_names(name)
        if own is None or (class_names is not None and own != class_names):
            raise InputError(
                f"dataset '{name}' has the class names {own}, {names[0]} has {class_names}; name "
                "one dataset with --dataset"
            )
        class_names = own
    return records, class_names or []


def _boxes(
    cfg: CfgNode,
    args: argparse.Namespace,
    records: list[dict[str, Any]],
    class_names: list[str],
    divisor: int,
) -> TrainingBoxes:
    if args.samples < 0:
        raise InputError(f"--samples is {args.samples}, but must be 0 or more")
    if args.samples:
        mapper = build_train_mapper(cfg, records)
        return sampled_boxes(records, class_names, mapper, args.samples, args.seed, divisor)
    return _resized(cfg, from_dataset_dicts(records, class_names, "train"), divisor)


def _resized(cfg: CfgNode, table: DatasetTable, divisor: int) -> TrainingBoxes:
    shorts = list(dict.fromkeys(cfg.INPUT.MIN_SIZE_TRAIN))
    if cfg.INPUT.MIN_SIZE_TRAIN_SAMPLING == "range" and len(shorts) == 2:
        shorts = [shorts[0], sum(shorts) // 2, shorts[1]]
    return resized_boxes(table, shorts, cfg.INPUT.MAX_SIZE_TRAIN, divisor)
