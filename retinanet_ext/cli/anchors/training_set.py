"""The training set whose objects the anchors are held against."""

from __future__ import annotations

import argparse
from typing import Any

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog

from ...anchor_tools import TrainingBoxes, resized_boxes, sampled_boxes
from ...data.augment import build_train_mapper
from ...data.datasets.by_path import register_extra_datasets
from ...data.datasets.command_line import name_datasets
from ...data.datasets.register import load_class_names
from ...data.doctor import DatasetTable, from_dataset_dicts
from ...errors import InputError
from ..common import check_registered

__all__ = ["read_records", "resized", "training_boxes"]


def read_records(cfg: CfgNode, args: argparse.Namespace) -> tuple[list[dict[str, Any]], list[str]]:
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


def training_boxes(
    cfg: CfgNode,
    args: argparse.Namespace,
    records: list[dict[str, Any]],
    class_names: list[str],
    divisor: int,
) -> TrainingBoxes:
    """The objects as training sees them, by --samples augmented, else in each training size."""
    if args.samples < 0:
        raise InputError(f"--samples is {args.samples}, but must be 0 or more")
    if args.samples:
        mapper = build_train_mapper(cfg, records)
        return sampled_boxes(records, class_names, mapper, args.samples, args.seed, divisor)
    return resized(cfg, from_dataset_dicts(records, class_names, "train"), divisor)


def resized(cfg: CfgNode, table: DatasetTable, divisor: int) -> TrainingBoxes:
    """The objects of every image at each of INPUT.MIN_SIZE_TRAIN."""
    shorts = list(dict.fromkeys(cfg.INPUT.MIN_SIZE_TRAIN))
    if cfg.INPUT.MIN_SIZE_TRAIN_SAMPLING == "range" and len(shorts) == 2:
        shorts = [shorts[0], sum(shorts) // 2, shorts[1]]
    return resized_boxes(table, shorts, cfg.INPUT.MAX_SIZE_TRAIN, divisor)
