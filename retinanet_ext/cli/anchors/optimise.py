"""``anchors optimise``: anchors that fit better, printed and written as a config."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from detectron2.config import CfgNode
from detectron2.config import get_cfg as get_detectron2_cfg

from ...anchor_tools import (
    SHAPE_KMEANS,
    Coverage,
    Search,
    TrainingBoxes,
    cell_anchor_keys,
    compare_sizes,
    coverage,
    larger_pictures,
    search_anchors,
    search_shapes,
    verdict,
)
from ...anchor_tools.levels import anchor_levels
from ...boxes import AnchorLevel
from ...config.shipped import find_config
from ...data.doctor import from_dataset_dicts
from ...errors import InputError
from .training_set import training_boxes

__all__ = ["check_numbers", "optimise"]


def optimise(
    cfg: CfgNode, args: argparse.Namespace, records: list[dict[str, Any]], class_names: list[str]
) -> int:
    """Search, and print and write what was found."""
    levels, divisor = anchor_levels(cfg)
    boxes = training_boxes(cfg, args, records, class_names, divisor)
    if args.method == SHAPE_KMEANS:
        return _optimise_shapes(args, boxes, levels)
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
        _write_config(args, snippet, search.before, search.after)
        print(f"\n{args.output}: a config with these anchors")
    return 0


def _optimise_shapes(
    args: argparse.Namespace, boxes: TrainingBoxes, levels: Sequence[AnchorLevel]
) -> int:
    search = search_shapes(boxes.boxes, levels, args.shapes, args.seed)
    before = coverage(boxes, levels)
    print(
        f"{before.boxes} boxes: mean best IoU of shapes {search.before:.3f} before; with their "
        f"places, at IoU 0.5, {_describe(before)}"
    )
    if not search.is_better:
        print("no better shapes were found")
        if args.output:
            print(f"{args.output} is not written: '{args.config_file}' is as good")
        return 0
    after = coverage(boxes, search.levels)
    print(f"{search.after:.3f} after; {_describe(after)}")
    print()
    snippet = {"MODEL": {"ANCHOR_GENERATOR": cell_anchor_keys(search.levels)}}
    print(yaml.safe_dump(snippet, sort_keys=False, default_flow_style=None).rstrip())
    if args.output:
        _write_config(args, snippet, before, after)
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


def _write_config(
    args: argparse.Namespace, snippet: dict[str, Any], before: Coverage, after: Coverage
) -> None:
    folder = os.path.dirname(os.path.abspath(args.output))
    base = {"_BASE_": os.path.relpath(find_config(args.config_file), folder)}
    body = yaml.safe_dump(base | snippet, sort_keys=False, default_flow_style=None)
    head = (
        f"# By retinanet-ext anchors optimise, seed {args.seed}: {_describe(after)}\n"
        f"# (before: {_describe(before)}).\n"
    )
    Path(args.output).write_text(head + body, encoding="utf-8")


def check_numbers(args: argparse.Namespace) -> None:
    """Raise InputError for a number that the method does not read."""
    shapes = args.method == SHAPE_KMEANS
    for flag, unread in (("scales_per_octave", shapes), ("ratios", shapes), ("shapes", not shapes)):
        if unread and getattr(args, flag) is not None:
            fix = "give --shapes instead" if shapes else f"pass --method {SHAPE_KMEANS} for it"
            raise InputError(
                f"--{flag.replace('_', '-')} is not read with --method {args.method}; {fix}"
            )
