"""The ground truth side of COCO evaluation: its json, its gaps, and which class is which."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import logging
import math
import os
import tempfile
from collections.abc import Iterator
from typing import Any

import numpy as np
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets.coco import convert_to_coco_dict
from detectron2.utils.file_io import PathManager
from pycocotools.coco import COCO

from ..boxes import within_images
from ..compat import forget_metadata
from ..errors import ConfigError, InputError, did_you_mean
from ..files import written_whole

__all__ = ["class_table", "complete_annotations", "ground_truth_json", "is_number"]

UNNOTICED = 0.99  # share of a box's area: the detection of the rest has an IoU above all of COCO's

logger = logging.getLogger(__name__)


@contextlib.contextmanager
def ground_truth_json(dataset_name: str, output_dir: str | None) -> Iterator[list[dict] | None]:
    """Within the block, metadata "json_file" names a COCO json of what the dataset holds now.

    A dataset that has no COCO json of its own is converted to
    ``<output_dir>/<dataset_name>_coco_format_<hash of its content>.json``, or to a temporary
    file when there is no ``output_dir``. Metadata is restored afterwards: left in place,
    "json_file" would outlive the content it was made of.

    Yields:
        The dicts of a converted dataset; None for a dataset with a COCO json.
    """
    metadata = MetadataCatalog.get(dataset_name)
    own_json = metadata.get("json_file")
    # Detectron2's evaluator leaves this name behind; it may stem from an older content.
    detectron2_copy = f"{dataset_name}_coco_format.json"
    if own_json is not None and os.path.basename(own_json) != detectron2_copy:
        if not PathManager.exists(own_json) and dataset_name in DatasetCatalog:
            DatasetCatalog.get(dataset_name)  # may generate its files; else says what is missing
        yield None
        return
    _require_standard_dicts(dataset_name)
    dicts = DatasetCatalog.get(dataset_name)
    with contextlib.ExitStack() as stack:
        folder = output_dir or stack.enter_context(tempfile.TemporaryDirectory())
        content = _content_hash(dicts, metadata)
        path = os.path.join(folder, f"{dataset_name}_coco_format_{content}.json")
        if not PathManager.exists(path):
            _write_json(convert_to_coco_dict(dataset_name), path)
        forget_metadata(metadata, "json_file")
        try:
            metadata.json_file = path
            yield dicts
        finally:
            forget_metadata(metadata, "json_file")
            if own_json is not None:
                metadata.json_file = own_json


def class_table(dataset_name: str, coco_gt: COCO) -> tuple[list[int], list[str]]:
    """Category id in the dataset, and name, of each class index 0..K-1 of the model.

    Raises:
        ValueError: metadata does not tell which category is which class.
    """
    metadata = MetadataCatalog.get(dataset_name)
    key = "thing_dataset_id_to_contiguous_id"
    if metadata.get(key) is None and dataset_name in DatasetCatalog:
        DatasetCatalog.get(dataset_name)  # Detectron2 sets the mapping while it loads a json
    categories = {c["id"]: c["name"] for c in coco_gt.dataset["categories"]}
    names = list(metadata.get("thing_classes") or [categories[i] for i in sorted(categories)])
    mapping = metadata.get(key)
    if mapping is None:
        mapping = {k: k for k in range(len(names))}
        if not set(categories) <= set(mapping):
            raise InputError(
                f"Categories of dataset '{dataset_name}' have ids {sorted(categories)}, and its "
                f"metadata has no '{key}' to tell which class of the model each one is; set it"
            )
    category_ids = sorted(mapping, key=mapping.__getitem__)
    if [mapping[i] for i in category_ids] != list(range(len(names))):
        raise InputError(
            f"Metadata of dataset '{dataset_name}' has {len(names)} thing_classes, but '{key}' "
            f"maps to {sorted(mapping.values())}; it must reach each of 0..{len(names) - 1} once"
        )
    return category_ids, names


def complete_annotations(dataset_name: str, coco_gt: COCO) -> None:
    """Fill in, in place, what COCO's code insists on and many json files lack.

    Boxes become those that training sees: see :func:`retinanet_ext.boxes.within_images`.
    """
    coco_gt.dataset.setdefault("info", {})
    annotations = coco_gt.dataset.get("annotations", [])
    for annotation in annotations:
        annotation.setdefault("iscrowd", 0)
        if not is_number(annotation.get("area")):
            annotation["area"] = abs(annotation["bbox"][2] * annotation["bbox"][3])
    _put_within_images(dataset_name, coco_gt, annotations)
    if 0 in coco_gt.anns:
        logger.warning(
            "Dataset '%s' has an annotation with id 0: COCO's evaluation takes a match with it "
            "for no match. Number annotations from 1",
            dataset_name,
        )


def _put_within_images(dataset_name: str, coco_gt: COCO, annotations: list[dict]) -> None:
    if not annotations:
        return
    recorded = np.array([a["bbox"] for a in annotations], np.float64).reshape(-1, 4)
    corners = np.concatenate([recorded[:, :2], recorded[:, :2] + recorded[:, 2:]], axis=1)
    images = [coco_gt.imgs.get(a["image_id"], {}) for a in annotations]
    sizes = np.array([[x.get("height") or 0, x.get("width") or 0] for x in images], np.float64)
    boxes, changes = within_images(corners, sizes)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    # What rounding put over the border stays, so that COCO's own files give COCO's own numbers.
    noticed = changes.cut & (areas < UNNOTICED * np.abs(recorded[:, 2:].prod(axis=1)))
    changed = np.flatnonzero((changes.turned | noticed) & changes.kept)
    for row in changed.tolist():
        x1, y1, x2, y2 = boxes[row].tolist()
        annotations[row]["bbox"] = [x1, y1, x2 - x1, y2 - y1]
        if not annotations[row].get("segmentation"):  # else the area is the mask's
            annotations[row]["area"] = float(areas[row])
    if not changes.kept.all():
        kept = [a for a, keep in zip(annotations, changes.kept.tolist(), strict=True) if keep]
        coco_gt.dataset["annotations"] = kept
    if len(changed) or not changes.kept.all():
        with contextlib.redirect_stdout(io.StringIO()):
            coco_gt.createIndex()

    def show(row: int) -> str:
        return f"{images[row].get('file_name')} {recorded[row].tolist()} (XYWH)"

    if said := changes.describe(show):
        logger.info("ground truth of '%s': %s", dataset_name, said)


def is_number(value: object) -> bool:
    """Whether it is a finite number, not a text or a yes or no."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number of hundreds of digits
        return False


def _require_standard_dicts(dataset_name: str) -> None:
    if dataset_name not in DatasetCatalog:
        raise ConfigError(
            f"Dataset '{dataset_name}' is not registered and its metadata names no 'json_file'."
            f"{did_you_mean(dataset_name, DatasetCatalog.list())}"
        )
    if MetadataCatalog.get(dataset_name).get("thing_classes") is None:
        raise InputError(
            f"Dataset '{dataset_name}' has no class names; set them with "
            f"MetadataCatalog.get('{dataset_name}').thing_classes = [...]"
        )


def _content_hash(dicts: list[dict], metadata: Any) -> str:
    """Twelve hexadecimal digits that change with the annotations, class names or mapping."""
    mapping = metadata.get("thing_dataset_id_to_contiguous_id") or {}
    content = [dicts, list(metadata.thing_classes), sorted(mapping.items())]
    digest = hashlib.sha256()
    for chunk in json.JSONEncoder(default=_plain).iterencode(content):
        digest.update(chunk.encode())
    return digest.hexdigest()[:12]


def _write_json(content: dict[str, Any], path: str) -> None:
    """What Detectron2's ``convert_to_coco_json`` does, with numbers of NumPy, too."""
    PathManager.mkdirs(os.path.dirname(path))
    with written_whole(path) as new, open(new, "w", encoding="utf-8") as file:
        json.dump(content, file, default=_plain)


def _plain(value: Any) -> Any:
    """Arrays and tensors as lists, anything else as text."""
    return value.tolist() if hasattr(value, "tolist") else str(value)
