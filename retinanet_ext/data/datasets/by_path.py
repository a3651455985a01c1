"""Datasets that a config names by their paths, in ``DATASETS.EXTRA``."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog

from ...errors import FileError, InputError, UserError, listed
from ..formats import BoxTable, Source, default_cache_dir, detect, read_cached
from .bad_pictures import note_unopened, require_pictures, without_bad_pictures
from .class_rules import ClassRules, class_map, resolve_class_names
from .entries import Entry, extra_entries
from .similar import group_similar
from .split import split_images
from .usable import usable_table

__all__ = ["ExtraDataset", "register_extra_datasets"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class ExtraDataset:
    """What ``DatasetCatalog`` holds for an entry: called, it gives Detectron2's dicts.

    Attributes:
        name: the registered name.
        table: the annotations; dicts are made of them at each call.
        names: the model's classes.
        new_class: index into ``names`` for each class of the table, -1 to leave its boxes out.
        images: which images of the table.
        annotations: path of the file or folder, for messages.
        origin: who registered it, and may register the name again.
    """

    name: str
    table: BoxTable
    names: list[str]
    new_class: list[int]
    images: list[int]
    annotations: str
    origin: str = "config"

    def __call__(self) -> list[dict]:
        return self.table.records(self.images, self.new_class)

    def class_names(self) -> list[str]:
        """The model's classes."""
        return list(self.names)

    def fingerprint(self) -> dict[str, Any]:
        """What identifies it: ``{"images", "annotations", "sha256"}``.

        The checksum is of what training reads, the same wherever the files lie: names and sizes of
        the images, boxes, classes and crowds, after classes were chosen.
        """
        digest = hashlib.sha256(json.dumps(self.names).encode())
        for record in self():
            picture = os.path.basename(record["file_name"]), record["height"], record["width"]
            boxes = [(x["bbox"], x["category_id"], x["iscrowd"]) for x in record["annotations"]]
            digest.update(json.dumps([picture, boxes]).encode())
        return {
            "images": len(self.images),
            "annotations": self.annotations,
            "sha256": digest.hexdigest(),
        }

    def require_files(self) -> None:
        """Nothing is missing: the annotations have been read already."""

    def pictures(self) -> list[str]:
        """Paths of its images."""
        return [self.table.file_names[i] for i in self.images]

    def is_whole_json(self) -> bool:
        """Whether this is a COCO json as it is, which then is the evaluation's ground truth."""
        same = self.new_class == list(range(len(self.names)))
        return same and bool(self.table.category_ids) and len(self.images) == len(self.table)


def register_extra_datasets(cfg: CfgNode, names: Iterable[str] | None = None) -> list[str]:
    """Read the datasets of ``DATASETS.EXTRA`` that are asked for, and register them.

    A name that this function registered before is registered again; one of someone else's raises.

    Args:
        cfg: reads DATASETS.EXTRA, CLASSES, DROP_CLASSES, MERGE_CLASSES, VAL_FRACTION, SPLIT_SEED,
            CACHE_DIR.
        names: the datasets wanted; by default DATASETS.TRAIN and DATASETS.TEST. The others of EXTRA
            are read only for their class names: where a wanted one lists none, and those of
            DATASETS.TRAIN, whose classes the model has, if they are there.

    Returns:
        The wanted names that are in DATASETS.EXTRA.

    Raises:
        ValueError, OSError: what is wrong with an entry or its annotations.
    """
    wanted = set((*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST) if names is None else names)
    entries, rules = extra_entries(cfg), ClassRules.from_cfg(cfg)
    asked = [entry for entry in entries if entry.name in wanted]
    for entry in asked:
        _require_free(entry.name)
    sources: dict[Source, BoxTable] = {}
    tables = {entry.name: _read(entry, cfg, sources) for entry in asked}
    if not rules.keep and not all(table.declared for table in tables.values()):
        tables |= {e.name: _read(e, cfg, sources) for e in entries if e.name not in tables}
    first = [name for name in cfg.DATASETS.TRAIN if name not in tables]
    for entry in (x for x in entries if x.name in first and asked and not rules.keep):
        try:
            tables[entry.name] = _read(entry, cfg, sources)
        except UserError as error:  # where a model is only evaluated, they may be elsewhere
            logger.info("classes are not compared with '%s': %s", entry.name, error)
    if asked and not any(table.class_names for table in tables.values()):
        first_read = asked[0].source.annotations
        raise InputError(f"{first_read}: has no object, and so no class; there is nothing to learn")
    class_names = resolve_class_names(tables, rules, cfg.DATASETS.TRAIN) if asked else {}
    groups: dict[Source, list[int]] = {}
    for entry in asked:
        table, resolved = tables[entry.name], class_names[entry.name]
        if entry.split and cfg.DATASETS.SPLIT_SIMILAR_TOGETHER and entry.source not in groups:
            groups[entry.source] = group_similar(table.file_names)
        images = _images(entry, table, cfg, groups.get(entry.source))
        new_class = class_map(table, rules, resolved)
        dataset = ExtraDataset(
            entry.name, table, resolved, new_class, images, entry.source.annotations
        )
        _register(dataset)
    return [entry.name for entry in asked]


def _read(entry: Entry, cfg: CfgNode, known: dict[Source, BoxTable]) -> BoxTable:
    cache_dir = cfg.DATASETS.CACHE_DIR
    cache_dir = {"": default_cache_dir(), "none": ""}.get(cache_dir, cache_dir)
    try:
        source = detect(entry.source)
        if source not in known:  # the two parts of a split are read together
            table = read_cached(source, cache_dir)
            require_pictures(table, source.annotations, source.images)
            known[source] = usable_table(table, source.annotations)
    except (ValueError, OSError) as error:
        raise _kind_of(error)(f"dataset '{entry.name}': {error}") from error
    return known[source]


def _kind_of(error: Exception) -> type[UserError]:
    """Errors of reading a dataset are the user's to read, whatever library raised them."""
    if isinstance(error, UserError):
        return type(error)
    return FileError if isinstance(error, OSError) else InputError


def _images(entry: Entry, table: BoxTable, cfg: CfgNode, groups: list[int] | None) -> list[int]:
    node, images = cfg.DATASETS, list(range(len(table)))
    if entry.split:
        images = split_images(
            table.file_names, entry.split, node.VAL_FRACTION, node.SPLIT_SEED, groups
        )
    trains = entry.name in node.TRAIN or bool(entry.split)
    if entry.split == "val" and cfg.DATALOADER.ON_ERROR == "skip":  # evaluation skips nothing
        note_unopened(table, images)
    return without_bad_pictures(entry.name, table, images, cfg.DATALOADER.ON_ERROR, trains)


def _require_free(name: str) -> None:
    if name in DatasetCatalog and getattr(DatasetCatalog[name], "origin", "") != "config":
        raise InputError(
            f"DATASETS.EXTRA has an entry '{name}', but a dataset of this name is registered "
            "already; choose another NAME"
        )


def _register(dataset: ExtraDataset) -> None:
    name, table = dataset.name, dataset.table
    for catalog in (DatasetCatalog, MetadataCatalog):
        if name in catalog:
            catalog.pop(name)
    DatasetCatalog.register(name, dataset)
    metadata = MetadataCatalog.get(name)
    metadata.set(thing_classes=dataset.class_names(), evaluator_type="coco")
    if dataset.is_whole_json():
        ids = {category: i for i, category in enumerate(table.category_ids)}
        metadata.set(json_file=dataset.annotations, thing_dataset_id_to_contiguous_id=ids)
    _log(dataset)


def _log(dataset: ExtraDataset) -> None:
    table = dataset.table
    kept = np.array([*dataset.new_class, -1])[table.classes] >= 0
    before = np.cumsum([0, *kept])[table.starts]
    counts = np.diff(before)[dataset.images].tolist()
    logger.info(
        "Dataset '%s': %d images (%d without boxes), %d boxes, %d classes: %s",
        dataset.name,
        len(counts),
        counts.count(0),
        sum(counts),
        len(dataset.names),
        listed(dataset.names),
    )
