"""``retinanet-ext show-data``: training samples as the model sees them, on one picture."""

from __future__ import annotations

import argparse
import os
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.modeling import build_anchor_generator, build_backbone
from detectron2.structures import Boxes, Instances
from PIL import Image

from ...config import validate_cfg
from ...data.augment import build_train_mapper
from ...data.datasets.by_path import register_extra_datasets
from ...data.datasets.command_line import NAMES, name_datasets
from ...data.loading.bad_images import LoadOrFail
from ...errors import InputError, count
from ...modeling.assigners.debug import describe_assignment
from ...registry import ASSIGNER_REGISTRY
from ...structures import RETINANET_ARCHITECTURES
from ...visualization.draw_sample import draw_sample
from ...visualization.palette import DISTINCT
from ...visualization.sheet import contact_sheet, tile_caption, tile_heights
from ..common import add_training_set, check_registered, config_options, load_cfg
from ..options.numbers import positive_int
from .pictures import check_picture, each_readable, pick_images

__all__ = ["AnchorMaker", "add_parser", "run"]

SHEET_WIDTH = 2000  # px


def add_parser(subparsers: Any, name: str) -> argparse.ArgumentParser:
    """Add the command and its options."""
    parser = subparsers.add_parser(
        name,
        parents=[config_options(what="a config")],
        description="Load a few images of a training set, augment them as the config says, and "
        "write one picture of them with their boxes and ignored regions.",
    )
    parser.add_argument("--output", required=True, metavar="FILE", help="picture, .png or .jpg")
    add_training_set(parser, default="the config's first")
    parser.add_argument("--num", type=positive_int, default=12, help="images (default: 12)")
    parser.add_argument("--seed", type=int, default=0, help="of the augmentations (default: 0)")
    parser.add_argument(
        "--anchors", action="store_true", help="draw the positive anchors of each box, too"
    )
    parser.set_defaults(run=run)
    return parser


def run(args: argparse.Namespace) -> int:
    """Write the picture.

    Raises:
        UserError: names the option or key, its value and what can be done.
    """
    check_picture("--output", args.output)
    cfg, name, dicts, class_names = _load(args)
    if not 0 <= args.seed < 2**32:
        raise InputError(f"--seed must be in [0, 2**32), got {args.seed}")
    random.seed(args.seed)
    np.random.seed(args.seed)
    mapper = LoadOrFail(build_train_mapper(cfg, dicts), "fix or remove it")
    num_objects = [len(x.get("annotations", [])) for x in dicts]
    chosen = [dicts[i] for i in pick_images(num_objects, args.num)]
    samples, _ = each_readable(chosen, mapper)
    views = [_view(x, cfg) for x in samples]
    if args.anchors:
        _add_anchors(views, samples, cfg)
    _write_sheet(args.output, views, class_names, f"{name}, as augmented")
    boxes = sum(len(view.boxes) for view in views)
    print(f"{args.output}: {count(len(views), 'sample')} of {name}, {count(boxes, 'box', 'boxes')}")
    return 0


@dataclass
class _View:
    """A sample for the sheet: (H, W, 3) RGB, boxes (N, 4), and what belongs to them."""

    name: str
    image: np.ndarray
    boxes: np.ndarray
    classes: list[int]
    ignore_boxes: np.ndarray
    anchors: np.ndarray | None = None
    anchor_classes: list[int] | None = None
    num_uncovered: int = 0


class AnchorMaker:
    """The anchors of a config's RetinaNet, without its weights."""

    def __init__(self, cfg: CfgNode):
        """
        Raises:
            ValueError: ``cfg`` is of another architecture.
        """
        if cfg.MODEL.META_ARCHITECTURE not in RETINANET_ARCHITECTURES:
            raise InputError(
                f"--anchors needs a RetinaNet, but MODEL.META_ARCHITECTURE is "
                f"'{cfg.MODEL.META_ARCHITECTURE}'"
            )
        with torch.device("meta"):  # shapes only: no weights are drawn
            backbone = build_backbone(cfg)
        shapes = [backbone.output_shape()[name] for name in cfg.MODEL.RETINANET.IN_FEATURES]
        self.strides = [shape.stride for shape in shapes]
        self.divisor = backbone.size_divisibility or 1
        self.generator = build_anchor_generator(cfg, shapes)

    def __call__(self, height: int, width: int) -> list[Boxes]:
        """L Boxes (Hi*Wi*A, 4) for an image of this size, padded as in a batch of its own."""
        padded = [_round_up(side, self.divisor) for side in (height, width)]
        features = [
            torch.zeros(1, 1, *(_round_up(side, stride) // stride for side in padded))
            for stride in self.strides
        ]
        return self.generator(features)


def _load(args: argparse.Namespace) -> tuple[CfgNode, str, list[dict], list[str]]:
    """The config, and the name, dicts and class names of the dataset to show."""
    cfg = load_cfg(args)
    if args.train is None and args.classes is not None:
        raise InputError("--classes goes with --train, which is not there")
    if args.train is not None:
        name_datasets(cfg, args.train, None, args.classes)
    if args.train is None and args.dataset is None and not cfg.DATASETS.TRAIN:
        raise InputError(
            f"'{args.config_file}' has no DATASETS.TRAIN; name a dataset with --dataset or --train"
        )
    validate_cfg(cfg)
    name = NAMES["train"] if args.train is not None else args.dataset or cfg.DATASETS.TRAIN[0]
    register_extra_datasets(cfg, [name])
    check_registered(name, "Give your own with --train, or in DATASETS.EXTRA")
    dicts = DatasetCatalog.get(name)
    if not dicts:
        raise InputError(f"dataset '{name}' has no images to draw")
    class_names = list(MetadataCatalog.get(name).get("thing_classes", []))
    if args.anchors:
        cfg.MODEL.RETINANET.NUM_CLASSES = len(class_names)
    return cfg, name, dicts, class_names


def _view(sample: dict[str, Any], cfg: CfgNode) -> _View:
    image = sample["image"].numpy().transpose(1, 2, 0)
    instances = sample["instances"]
    ignored = sample.get("ignore_boxes")
    return _View(
        name=sample["file_name"],
        image=np.ascontiguousarray(image[:, :, ::-1] if cfg.INPUT.FORMAT == "BGR" else image),
        boxes=instances.gt_boxes.tensor.numpy(),
        classes=instances.gt_classes.tolist(),
        ignore_boxes=np.zeros((0, 4)) if ignored is None else ignored.tensor.numpy(),
    )


def _add_anchors(views: list[_View], samples: list[dict[str, Any]], cfg: CfgNode) -> None:
    make_anchors = AnchorMaker(cfg)
    assigner = ASSIGNER_REGISTRY.get(cfg.MODEL.RETINANET.ASSIGNER)(cfg)
    for view, sample in zip(views, samples, strict=True):
        instances: Instances = sample["instances"]
        anchors = make_anchors(*view.image.shape[:2])
        if hasattr(assigner, "debug_targets"):
            described = assigner.debug_targets(anchors, [instances])[0]
        else:
            described = describe_assignment(assigner(anchors, [instances]), anchors, [instances])[0]
        found = described.pos_gt >= 0
        view.anchors = described.pos_anchors[found].numpy()
        view.anchor_classes = instances.gt_classes[described.pos_gt[found]].tolist()
        view.num_uncovered = int((~described.is_covered).sum())


def _round_up(value: int, step: int) -> int:
    return -(-value // step) * step


def _write_sheet(output: str, views: list[_View], class_names: list[str], title: str) -> None:
    tiles, captions = [], []
    heights = tile_heights([view.image.shape for view in views], SHEET_WIDTH)
    labels = class_names if len(class_names) > DISTINCT else None  # else colours say which
    for view, height in zip(views, heights, strict=True):
        tiles.append(
            draw_sample(
                view.image,
                view.boxes,
                view.classes,
                view.ignore_boxes,
                labels,
                view.anchors,
                view.anchor_classes or (),
                height,
            )
        )
        name = os.path.basename(view.name)
        captions.append(tile_caption(name, _facts(view), tiles[-1].shape[1]))
    Path(output).parent.mkdir(parents=True, exist_ok=True)
    classes = {k for view in views for k in view.classes}
    dashed = "ignored" if any(len(view.ignore_boxes) for view in views) else ""
    sheet = contact_sheet(tiles, captions, class_names, title, dashed, classes)
    Image.fromarray(sheet).save(output)


def _facts(view: _View) -> str:
    height, width = view.image.shape[:2]
    facts = f"{width} x {height}, {count(len(view.boxes), 'box', 'boxes')}"
    if view.anchors is not None:
        facts += f", {count(len(view.anchors), 'anchor')}"
        facts += f" ({view.num_uncovered} without)" if view.num_uncovered else ""
    return facts
