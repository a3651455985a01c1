"""What a report is about: ground truth, detections, and where the pictures are."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog
from pycocotools.coco import COCO

from ...data.datasets.command_line import split_flag
from ...data.formats.places import find_images
from ...errors import InputError, UserError
from ...evaluation.ground_truth import class_table, complete_annotations, ground_truth_json
from ...evaluation.predictions.annotations import class_names
from ...evaluation.predictions.evaluate import read_pair
from ...evaluation.predictions.fit import check_fit
from ...evaluation.predictions.reading import read_predictions

__all__ = ["Subject", "shown_file", "subject_of_dataset", "subject_of_files"]


@dataclass(frozen=True)
class Subject:
    """A set of images with detections.

    Attributes:
        name: of the dataset, or of the file of its annotations.
        coco_gt: ground truth.
        detections: COCO results.
        names: of the category ids.
        files: image id -> path of the picture, where known.
        called: what sentences call detections and ground truth; no folders.
        remarks: what is odd about them, such as missing pictures.
    """

    name: str
    coco_gt: COCO
    detections: list[dict[str, Any]]
    names: Mapping[int, str]
    files: Mapping[Any, str]
    called: tuple[str, str]
    remarks: list[str] = field(default_factory=list)


def subject_of_files(predictions: str, annotations: str) -> Subject:
    """Detections and a COCO json, named as ``ANNOTATIONS[:IMAGES]``.

    Raises:
        ValueError: one is wrong, or they do not belong together.
        OSError: one cannot be read.
    """
    path, folder = split_flag(annotations)
    coco_gt, detections = read_pair(predictions, path)
    remarks: list[str] = []
    files: dict[Any, str] = {}
    images = coco_gt.imgs
    wanted = {i: row["file_name"] for i, row in images.items() if row.get("file_name")}
    try:
        place = find_images(path, [str(x) for x in wanted.values()], folder) if wanted else None
    except UserError:
        place = None
    if place is not None:
        files = {i: place.path(str(name)) for i, name in wanted.items()}
    called = os.path.basename(predictions), os.path.basename(path)
    return _checked(
        Subject(called[1], coco_gt, detections, class_names(coco_gt), files, called, remarks)
    )


def subject_of_dataset(name: str, predictions: str) -> Subject:
    """Detections of a registered dataset.

    Args:
        name: of a dataset in Detectron2's catalogs, of boxes.
        predictions: path of the evaluation's ``coco_instances_results.json``.

    Raises:
        ValueError: one is wrong, the set has no annotations, or they do not belong together.
        OSError: one cannot be read.
    """
    with ground_truth_json(name, None):
        path = MetadataCatalog.get(name).json_file
        coco_gt = _load(path)
    if "annotations" not in coco_gt.dataset:
        raise InputError(
            f"dataset '{name}' has no annotations, so there is nothing to compare detections with"
        )
    complete_annotations(name, coco_gt)
    category_ids, names = class_table(name, coco_gt)
    detections = read_predictions(predictions)
    check_fit(predictions, detections, f"dataset '{name}'", coco_gt)
    files: dict[Any, str] = {}
    try:
        for record in DatasetCatalog.get(name) if name in DatasetCatalog else ():
            files[record["image_id"]] = record["file_name"]
    except (UserError, KeyError):
        files = {}
    called = os.path.basename(predictions), name
    by_id = dict(zip(category_ids, names, strict=True))
    return _checked(Subject(name, coco_gt, detections, by_id, files, called))


def shown_file(subject: Subject, image_id: Any) -> str:
    """What a page calls a picture: its name in the annotations, without the user's folders."""
    row = subject.coco_gt.imgs.get(image_id, {})
    name = str(row.get("file_name") or "").replace("\\", "/")
    if not name:
        return f"image {image_id}"
    outside = name.startswith("/") or ".." in name.split("/") or name[1:2] == ":"
    return name.rpartition("/")[2] if outside or "://" in name else name


def _checked(subject: Subject) -> Subject:
    """The subject, with a remark where its pictures are not there."""
    there = {i: path for i, path in subject.files.items() if os.path.isfile(path)}
    missing = len(subject.coco_gt.imgs) - len(there)
    remarks = list(subject.remarks)
    if not there:
        remarks.append("the pictures are not on this machine, so the page shows none")
    elif missing:
        remarks.append(f"{missing} of {len(subject.coco_gt.imgs)} pictures are missing on disk")
    return replace(subject, files=there, remarks=remarks)


def _load(path: str) -> COCO:
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints
        return COCO(path)
