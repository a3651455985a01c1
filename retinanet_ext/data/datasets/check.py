"""Stops before training on datasets that do not fit the config, or hold impossible annotations."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.utils.file_io import PathManager
from tabulate import tabulate

from ...console import SHOWN
from ...errors import InputError, MissingFileError, count, did_you_mean, listed
from ...protocols import LazyDataset
from ...structures import detection_node, detection_section
from .bad_pictures import require_all_pictures
from .class_counts import check_dataset_dicts
from .own_dicts import check_own_datasets
from .register import load_class_names
from .usable import check_boxes, check_masks

__all__ = ["check_datasets", "check_num_classes"]

logger = logging.getLogger(__name__)


def check_datasets(cfg: CfgNode) -> None:
    """Check the datasets of ``cfg`` and log how many objects of each class there are to train on.

    ``DATASETS.TRAIN`` and ``DATASETS.TEST`` may be empty. Training datasets are loaded whole, and
    of the others those that only a user's function knows.

    Raises:
        ValueError: see ``check_num_classes`` and ``check_dataset_dicts``.
        FileNotFoundError: files of a dataset are missing.
    """
    for name in (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST):
        _check_registered(name)
        _check_files(name)
    for name in cfg.DATASETS.TEST:
        if pictures := getattr(DatasetCatalog[name], "pictures", None):
            require_all_pictures(name, pictures())
    check_own_datasets(cfg)
    # Loaded first: it puts the class names into the metadata, where check_num_classes finds them.
    loaded = [(name, DatasetCatalog.get(name)) for name in cfg.DATASETS.TRAIN]
    check_num_classes(cfg)
    totals: dict[str, int] = {}
    for name, dicts in loaded:
        class_names = load_class_names(name)
        node = detection_node(cfg)
        num_classes = len(class_names or ()) if node is None else node.NUM_CLASSES
        if getattr(DatasetCatalog[name], "origin", "") == "":  # ours were looked at when read
            check_boxes(name, dicts)
        if cfg.MODEL.MASK_ON:
            check_masks(name, dicts)
        if not num_classes:
            continue  # nothing says what the ids may be
        section = detection_section(cfg) or "MODEL.RETINANET"
        key = f"{section}.NUM_CLASSES"
        counts = check_dataset_dicts(name, dicts, num_classes, class_names, key)
        for label, number in zip(class_names or range(num_classes), counts, strict=True):
            totals[str(label)] = totals.get(str(label), 0) + number
    if totals:
        if not any(totals.values()):
            raise _no_objects(loaded)
        images = [record for _, dicts in loaded for record in dicts]
        _log_counts(cfg.DATASETS.TRAIN, len(images), totals)
        empty = sum(not _has_object(record) for record in images)
        if empty and cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS:
            logger.info(
                "data: %d of these images %s no object and %s not trained on; "
                "DATALOADER.FILTER_EMPTY_ANNOTATIONS False at the end of the command keeps %s",
                *(empty, *(("has", "is", "it") if empty == 1 else ("have", "are", "them"))),
                extra=SHOWN,
            )


def check_num_classes(cfg: CfgNode) -> None:
    """Compare the class names of all datasets with each other and with ``NUM_CLASSES``.

    Which key that is, the architecture decides; of one that has none, only datasets are compared.

    Raises:
        ValueError: a dataset is not registered, its classes differ from another one's, or
            ``NUM_CLASSES`` is not their number.
    """
    first: tuple[str, list[str]] | None = None
    for name in dict.fromkeys((*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST)):
        _check_registered(name)
        class_names = load_class_names(name)
        if class_names is None:
            logger.info("Dataset '%s' has no thing_classes; its classes are not checked.", name)
            continue
        if first is None:  # of what differs from the first one, no number would be right
            first = name, class_names
            node = detection_node(cfg)
            if node is not None:
                key = f"{detection_section(cfg)}.NUM_CLASSES"
                only_test = name not in cfg.DATASETS.TRAIN
                _check_number(key, node.NUM_CLASSES, name, class_names, only_test)
        elif first[1] != class_names:
            raise InputError(
                f"datasets '{first[0]}' and '{name}' have different classes: "
                f"{_difference(first[1], class_names)}; the order counts too: list the same "
                "categories in both, also those without objects, or name the files by --train and "
                "--val, which match classes by name"
            )


def _no_objects(loaded: Sequence[tuple[str, list[dict[str, Any]]]]) -> InputError:
    boxes = [x for _, dicts in loaded for record in dicts for x in record.get("annotations", ())]
    seen = (
        f"all {len(boxes)} boxes are crowds, ignored or difficult ones, which teach nothing"
        if boxes
        else "no image has a box that can be used"
    )
    names = [name for name, _ in loaded]
    files = [
        getattr(DatasetCatalog[name], "annotations", MetadataCatalog.get(name).get("json_file"))
        for name in names
    ]
    shown = [f"{name} ({file})" if file else name for name, file in zip(names, files, strict=True)]
    return InputError(
        f"there is no object to train on in {listed(shown)}: {seen}; look at the annotations with "
        "check-data"
    )


def _check_registered(name: str) -> None:
    if name not in DatasetCatalog:
        raise InputError(
            f"DATASETS names '{name}', which is not registered."
            f"{did_you_mean(name, DatasetCatalog.list())} Register your own with "
            "retinanet_ext.data.register_coco_dataset before"
        )


def _check_files(name: str) -> None:
    """Find missing files now, not when training is over and evaluation begins."""
    source = DatasetCatalog[name]
    json_file = MetadataCatalog.get(name).get("json_file")
    if isinstance(source, LazyDataset):
        source.require_files()
    elif json_file is not None and not PathManager.isfile(json_file):
        raise MissingFileError(
            f"dataset '{name}' is not there: no {json_file}; Detectron2 looks for its own datasets "
            "below the folder that DETECTRON2_DATASETS names, or else ./datasets"
        )


def _check_number(
    key: str, num_classes: int, name: str, class_names: list[str], only_test: bool
) -> None:
    if num_classes != len(class_names):
        fix = f"set {key} to {len(class_names)}"
        if only_test and num_classes > len(class_names):  # the model is there, and has its classes
            fix = "list all classes of the model, in its order, in DATASETS.CLASSES"
        raise InputError(
            f"{key} is {num_classes} but dataset '{name}' has "
            f"{count(len(class_names), 'class', 'classes')} ({listed(class_names)}); {fix}"
        )


def _difference(first: list[str], second: list[str]) -> str:
    if len(first) != len(second):
        return f"{len(first)} ({listed(first)}) and {len(second)} ({listed(second)})"
    index = next(i for i, (a, b) in enumerate(zip(first, second, strict=True)) if a != b)
    return f"class {index} is '{first[index]}' in the one and '{second[index]}' in the other"


def _has_object(record: dict[str, Any]) -> bool:
    """What Detectron2's filter of images asks."""
    return any(x.get("iscrowd", 0) == 0 for x in record.get("annotations", ()))


def _log_counts(names: Sequence[str], num_images: int, counts: dict[str, int]) -> None:
    logger.info(
        "data: %s, %s, %s of %s (%s)",
        ", ".join(names),
        count(num_images, "image"),
        count(sum(counts.values()), "object"),
        count(len(counts), "class", "classes"),
        listed([f"{name} {number}" for name, number in counts.items()]),
        extra=SHOWN,
    )
    rows = [*counts.items(), ("total", sum(counts.values()))]
    table = tabulate(rows, headers=("class", "objects"), tablefmt="simple")
    logger.info("Objects in %s:\n%s", ", ".join(names), table)
