"""``retinanet-ext draw-detections``: what a trained model finds, on one picture."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BoxMode
from PIL import Image

from ...config import validate_cfg
from ...data.datasets.by_path import register_extra_datasets
from ...errors import InputError, MissingFileError, count
from ...inference import Prediction, Predictor
from ...inference.class_names import class_names_of
from ...structures import detection_node, detection_section
from ...visualization.sheet import contact_sheet, tile_caption, tile_heights
from ..common import check_registered, config_options, load_cfg
from ..options.given_images import list_images
from ..options.numbers import positive_int, share
from .pictures import check_picture, each_readable, pick_images

__all__ = ["add_parser", "run"]


def add_parser(subparsers: Any, name: str) -> argparse.ArgumentParser:
    """Add the command and its options."""
    parser = subparsers.add_parser(
        name,
        parents=[config_options()],
        description="Run a trained model on a few images and write one picture of its detections; "
        "on images of a dataset, over the ground truth.",
    )
    parser.add_argument("--weights", required=True, metavar="FILE", help="its checkpoint")
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument(
        "--dataset", metavar="NAME", help="a registered dataset, or one of the config's own"
    )
    which.add_argument(
        "--images", nargs="+", metavar="PATH", help="images without annotations, folders of them"
    )
    parser.add_argument("--output", required=True, metavar="FILE", help="picture, .png or .jpg")
    parser.add_argument("--num", type=positive_int, default=6, help="images (default: 6)")
    parser.add_argument(
        "--score-thresh",
        type=share,
        default=0.5,
        metavar="S",
        help="draw detections with at least this score (default: 0.5)",
    )
    parser.set_defaults(run=run)
    return parser


def run(args: argparse.Namespace) -> int:
    """Write the picture; return 1 where an image that ``--images`` names cannot be read, else 0.

    Other bad images, of a dataset or a folder, are named and left out.

    Raises:
        UserError: names the option, its value and what can be done.
    """
    check_picture("--output", args.output)
    cfg = _load_cfg(args)
    if args.images:
        dicts = [{"file_name": path} for path in list_images(args.images)]
        class_names, source = class_names_of(cfg, args.data_root), f"{len(dicts)} given"
    else:
        dicts, class_names = _load_dataset(cfg, args.dataset)
        _check_classes(cfg, args.dataset, class_names)
        source = args.dataset
    chosen = [dicts[i] for i in pick_images([len(_gt_boxes(d)) for d in dicts], args.num)]
    predictor = Predictor(cfg, class_names=class_names)
    everything, drawn = each_readable(chosen, lambda record: predictor(record["file_name"]))
    found = [prediction.above(args.score_thresh) for prediction in everything]
    title = f"{args.dataset or count(len(drawn), 'image')}, scores from {args.score_thresh:.2f}"
    _write_sheet(args.output, drawn, found, title)
    total = sum(map(len, found))
    if not total:
        best = max((float(x.scores.max(initial=0.0)) for x in everything), default=0.0)
        print(_best_score(best, args.score_thresh))
    print(f"{args.output}: {count(total, 'detection')} on {count(len(drawn), 'image')} of {source}")
    left_out = {x["file_name"] for x in chosen} - {x["file_name"] for x in drawn}
    return 1 if left_out.intersection(args.images or ()) else 0


LOWEST_SCORE = 0.01
"""Detections are looked for from this score, to tell the best one where none is drawn."""


def _load_cfg(args: argparse.Namespace) -> CfgNode:
    cfg = load_cfg(args)
    if "://" not in args.weights and not os.path.isfile(args.weights):
        raise MissingFileError(
            f"--weights is '{args.weights}', and there is no such file; a training writes "
            f"model_final.pth to its OUTPUT_DIR, here '{cfg.OUTPUT_DIR}'"
        )
    cfg.MODEL.WEIGHTS = args.weights
    node = detection_node(cfg)
    if node is not None:
        node.SCORE_THRESH_TEST = min(node.SCORE_THRESH_TEST, args.score_thresh, LOWEST_SCORE)
    validate_cfg(cfg)
    return cfg


def _load_dataset(cfg: CfgNode, name: str) -> tuple[list[dict], list[str]]:
    """The dicts and class names of a registered dataset, or one of the config's own."""
    register_extra_datasets(cfg, [name])
    check_registered(
        name, "Give your own in DATASETS.EXTRA, or register it in a module that --import names"
    )
    dicts = DatasetCatalog.get(name)
    if not dicts:
        raise InputError(f"dataset '{name}' has no images to draw")
    return dicts, list(MetadataCatalog.get(name).get("thing_classes", []))


def _check_classes(cfg: CfgNode, dataset: str, class_names: list[str]) -> None:
    node = detection_node(cfg)
    if node is not None and len(class_names) != node.NUM_CLASSES:
        raise InputError(
            f"{detection_section(cfg)}.NUM_CLASSES is {node.NUM_CLASSES} but dataset '{dataset}' "
            f"has {count(len(class_names), 'class', 'classes')}; take the dataset the model was "
            "trained for, or its config"
        )


def _best_score(best: float, score_thresh: float) -> str:
    """What to say where nothing reached the threshold."""
    if best < LOWEST_SCORE:
        return f"nothing found: no score reaches {LOWEST_SCORE:g}, the model has learned nothing"
    shown = f"{best:.3f}"
    return (
        f"nothing found with a score from {score_thresh:g}: the best score is {shown}; a lower "
        "--score-thresh draws it"
    )


def _write_sheet(output: str, records: list[dict], found: list[Prediction], title: str) -> None:
    tiles, captions = [], []
    heights = tile_heights([prediction.picture.shape for prediction in found])
    has_gt = any("annotations" in record for record in records)
    for record, prediction, height in zip(records, found, heights, strict=True):
        gt_boxes = _gt_boxes(record)
        objects = f"{count(len(gt_boxes), 'object')}, " if has_gt else ""
        tiles.append(np.asarray(prediction.draw(0.0, height, gt_boxes)))
        facts = f"{objects}{count(len(prediction), 'detection')}"
        name = os.path.basename(record["file_name"])
        captions.append(tile_caption(name, facts, tiles[-1].shape[1]))
    dashed = "ground truth" if has_gt else ""
    names = list(found[0].class_names)
    classes = {int(k) for prediction in found for k in prediction.classes}
    Path(output).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(contact_sheet(tiles, captions, names, title, dashed, classes)).save(output)


def _gt_boxes(record: dict) -> np.ndarray:
    """(M, 4) absolute XYXY; crowds are left out."""
    boxes = [
        BoxMode.convert(annotation["bbox"], annotation["bbox_mode"], BoxMode.XYXY_ABS)
        for annotation in record.get("annotations", [])
        if not annotation.get("iscrowd", 0)
    ]
    return np.asarray(boxes, dtype=float).reshape(-1, 4)
