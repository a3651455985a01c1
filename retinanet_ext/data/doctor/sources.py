"""From what a user names, a path or a dataset, to a table."""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog

from ...errors import InputError, MissingFileError, UserError, did_you_mean
from ...protocols import LazyDataset
from ..datasets.by_path import register_extra_datasets
from ..datasets.command_line import source_of, split_flag
from ..datasets.entries import extra_entries
from ..datasets.register import load_class_names
from ..formats import Source, detect, read_cached
from ..formats.places import Place, find_images
from .images import ImageFacts
from .table import DatasetTable, from_coco_json, from_dataset_dicts

__all__ = ["LoadedTable", "load_table", "why_refused"]

OF_FORMATS = tuple(
    f"retinanet_ext.data.formats.{name}" for name in ("coco", "csv_rows", "voc", "yolo")
)


@dataclasses.dataclass(frozen=True)
class LoadedTable:
    """A table and the COCO json that it is made of; ``json_file`` is "" for other formats.

    ``facts`` are of the images that the reader could not read; ``dropped`` says how the json's file
    names begin below ``image_root``, see :func:`retinanet_ext.data.formats.places.tail`. ``said``
    is what the reader of training warned of.
    """

    table: DatasetTable
    json_file: str = ""
    image_root: str = ""
    dropped: int = 0
    facts: dict[str, ImageFacts] = dataclasses.field(default_factory=dict)
    said: tuple[str, ...] = ()


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
            if not entry.split:
                return _read(name, source)
            register_extra_datasets(cfg, [spec])
            return _registered(name, spec)
    if spec in DatasetCatalog:
        return _registered(name, spec)
    if not os.path.exists(split_flag(spec)[0]):
        raise MissingFileError(
            f"--{name} is '{spec}', which is neither there as ANNOTATIONS[:IMAGE_DIR] nor a "
            f"registered dataset.{did_you_mean(spec, DatasetCatalog.list())}"
        )
    source = source_of(spec, name, classes)
    if source.format == "coco":
        return _coco(name, source.annotations, source.images)
    return _read(name, source)


def _read(name: str, source: Source) -> LoadedTable:
    with _warnings_of_readers() as said:
        table = read_cached(source, "")
    dicts: list[dict[str, Any]] = table.records()
    facts = {
        path: ImageFacts("unreadable" if os.path.isfile(path) else "missing", f"the file {why}")
        for path, why in table.bad.items()
    }
    checked = from_dataset_dicts(dicts, table.class_names, name, source.annotations)
    checked = dataclasses.replace(checked, classes_by_name=True)
    return LoadedTable(checked, facts=facts, said=tuple(said))


def _coco(name: str, json_file: str, image_root: str, by_name: bool = True) -> LoadedTable:
    """The table of a json; its images where the reader of training finds them."""
    table = from_coco_json(json_file, image_root, name)
    names = [x for x in table.file_names if x]
    place, missing = Place(image_root or os.path.dirname(json_file)), ""
    try:
        place = find_images(json_file, names, image_root) if names else place
    except MissingFileError as error:  # annotations without images can be checked, too
        missing = str(error).removeprefix(f"{json_file}: ")
    files = [place.path(x) if x else "" for x in table.file_names]
    if not missing and names and not any(map(os.path.isfile, files)):
        missing = f"none of the {len(names)} images is there; looked for {place.path(names[0])}"
    table = dataclasses.replace(
        table, files=files, knows_folder=not missing, no_images=missing, classes_by_name=by_name
    )
    return LoadedTable(table, json_file, "" if missing else place.folder, place.dropped)


def why_refused(loaded: LoadedTable) -> str:
    """What the reader of training says of a COCO json that it cannot read; "" where it can.

    The checks read it in their own way, which stops at no fault. Other formats they cannot read
    otherwise, and a registered dataset is Detectron2's to read.
    """
    if not (loaded.json_file and loaded.table.classes_by_name):
        return ""
    try:
        read_cached(Source(loaded.json_file, loaded.image_root, "coco"), "")
    except (UserError, OSError) as error:
        return str(error).removeprefix(f"{loaded.json_file}: ")
    return ""


def _registered(name: str, dataset: str) -> LoadedTable:
    source = DatasetCatalog[dataset]
    if isinstance(source, LazyDataset):
        source.require_files()
    metadata = MetadataCatalog.get(dataset)
    json_file, image_root = metadata.get("json_file"), metadata.get("image_root")
    if json_file and image_root and metadata.get("evaluator_type") == "coco":
        return _coco(name, json_file, image_root, by_name=False)
    dicts = DatasetCatalog.get(dataset)
    class_names = load_class_names(dataset)
    if class_names is None:
        raise InputError(
            f"dataset '{dataset}' has no class names; set "
            f"MetadataCatalog.get('{dataset}').thing_classes"
        )
    return LoadedTable(from_dataset_dicts(dicts, class_names, name, dataset))


@contextmanager
def _warnings_of_readers() -> Iterator[list[str]]:
    """Collect what the readers of the formats warn of, beside logging it."""
    handler = _Collector()
    loggers = [logging.getLogger(name) for name in OF_FORMATS]
    for logger in loggers:
        logger.addHandler(handler)
    try:
        yield handler.lines
    finally:
        for logger in loggers:
            logger.removeHandler(handler)


class _Collector(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())
