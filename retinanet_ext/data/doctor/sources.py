"""From what a user names, a path or a dataset, to a table."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog

from ...errors import InputError, MissingFileError, did_you_mean
from ...protocols import LazyDataset
from ..datasets.by_path import absolute, extra_entries, register_extra_datasets
from ..datasets.command_line import split_flag
from ..datasets.register import load_class_names
from ..formats import Source, detect, read_cached, yolo_subsets
from ..formats.coco import PROBED_IMAGES, find_images
from .table import DatasetTable, from_coco_json, from_dataset_dicts

__all__ = ["LoadedTable", "load_table"]


@dataclasses.dataclass(frozen=True)
class LoadedTable:
    """A table and the COCO json that it is made of; ``json_file`` is "" for other formats."""

    table: DatasetTable
    json_file: str = ""
    image_root: str = ""


def load_table(name: str, spec: str, cfg: CfgNode, classes: str = "") -> LoadedTable:
    """Read the annotations of ``spec``.

    A COCO json is read by this package's tolerant reader, wherever it is named: the others stop at
    its first fault, and Detectron2's leaves some boxes out. VOC, YOLO and CSV go through the
    readers of training, which raise for what they cannot read.

    Args:
        name: "train" or "val", for messages and for the list of a YOLO data.yaml.
        spec: ANNOTATIONS[:IMAGE_DIR], a name in ``DATASETS.EXTRA`` or a registered dataset.
        cfg: reads ``DATASETS``.
        classes: file of class names for VOC and CSV.

    Raises:
        ValueError, OSError: there is no such thing, or its reader cannot read it.
    """
    for entry in extra_entries(cfg):
        if entry.name == spec:
            source = detect(entry.source)
            if source.format == "coco" and not entry.split:
                return _coco(name, source.annotations, source.images)
            register_extra_datasets(cfg, [spec])
            return _registered(name, spec)
    if spec in DatasetCatalog:
        return _registered(name, spec)
    annotations, images = split_flag(spec)
    if not os.path.exists(annotations):
        raise MissingFileError(
            f"--{name} is '{spec}', which is neither there as ANNOTATIONS[:IMAGE_DIR] nor a "
            f"registered dataset.{did_you_mean(spec, DatasetCatalog.list())}"
        )
    source = detect(Source(absolute(annotations), absolute(images), classes=absolute(classes)))
    if source.format == "coco":
        return _coco(name, source.annotations, source.images)
    if source.format == "yolo":
        listed = yolo_subsets(source.annotations)
        subset = name if name in listed or not listed else listed[0]
        source = dataclasses.replace(source, subset=subset)
    table = read_cached(source, "")
    dicts: list[dict[str, Any]] = table.records()
    return LoadedTable(from_dataset_dicts(dicts, table.class_names, name, source.annotations))


def _coco(name: str, json_file: str, image_root: str) -> LoadedTable:
    table = from_coco_json(json_file, image_root, name)
    if image_root:
        return LoadedTable(table, json_file, image_root)
    beside = os.path.join(os.path.dirname(json_file), "")  # where the table has them
    names = [x.removeprefix(beside) for x in table.files]
    probed = [x for x in names if x][:PROBED_IMAGES]
    try:
        folder = find_images(Path(json_file), probed) if probed else ""
    except FileNotFoundError:
        folder = ""
    if not folder:
        return LoadedTable(table, json_file)  # annotations without images can be checked, too
    files = [os.path.join(folder, x) if x else "" for x in names]
    table = dataclasses.replace(table, files=files, knows_folder=True)
    return LoadedTable(table, json_file, folder)


def _registered(name: str, dataset: str) -> LoadedTable:
    source = DatasetCatalog[dataset]
    if isinstance(source, LazyDataset):
        source.require_files()
    metadata = MetadataCatalog.get(dataset)
    json_file, image_root = metadata.get("json_file"), metadata.get("image_root")
    if json_file and image_root and metadata.get("evaluator_type") == "coco":
        return _coco(name, json_file, image_root)
    dicts = DatasetCatalog.get(dataset)
    class_names = load_class_names(dataset)
    if class_names is None:
        raise InputError(
            f"dataset '{dataset}' has no class names; set "
            f"MetadataCatalog.get('{dataset}').thing_classes"
        )
    return LoadedTable(from_dataset_dicts(dicts, class_names, name, dataset))
