"""The annotations that detections are compared with: a COCO json, for which no image is needed."""

from __future__ import annotations

import contextlib
import io
import os
from collections import Counter
from typing import Any

from pycocotools.coco import COCO

from ...data.formats.text import parse_flag, parse_name, parse_size
from ...errors import InputError
from ..ground_truth import complete_annotations
from .reading import is_box, is_id, load_json

__all__ = ["class_names", "read_annotations"]


def read_annotations(path: str) -> COCO:
    """The ground truth of a COCO json, complete for COCO's evaluation.

    Annotations are numbered from 1, since COCO's code takes a match with number 0 for none.

    Raises:
        ValueError: it is no such json; names file and entry.
        OSError: it cannot be read.
    """
    content = load_json(path)
    if isinstance(content, list):
        raise InputError(
            f"{path} is a list, as files of detections are, but must be the COCO json of the "
            "ground truth; are --predictions and --annotations exchanged?"
        )
    for key in ("images", "categories", "annotations"):
        if not isinstance(content, dict) or not isinstance(content.get(key), list):
            hint = "give the json that the detector was validated with"
            if key == "annotations":
                hint = f"that of a test set has none to compare with; {hint}"
            raise InputError(f"{path} is not a COCO json of ground truth: no list '{key}'; {hint}")
        for i, row in enumerate(content[key]):
            if not isinstance(row, dict):
                raise InputError(f"{path}: entry {i} of '{key}' is {row!r:.40}, but no object")
    if not content["images"] or not content["categories"]:
        raise InputError(f"{path} lists no images or no categories, so nothing can be compared")
    _check_images(path, content["images"])
    categories = _check_categories(path, content["categories"])
    images = {row["id"] for row in content["images"]}
    for i, row in enumerate(content["annotations"]):
        _check_annotation(f"{path}: entry {i} of 'annotations'", row, images, categories)
        row["id"] = i + 1
    coco = COCO()
    coco.dataset = content
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints
        coco.createIndex()
    complete_annotations(os.path.basename(path), coco)
    return coco


def class_names(coco_gt: COCO) -> dict[int, str]:
    """Name of each category id, ascending; names that are there twice get their id."""
    rows = sorted(coco_gt.dataset["categories"], key=lambda row: row["id"])
    names = {row["id"]: str(row["name"]) for row in rows}
    often = Counter(names.values())
    return {i: name if often[name] == 1 else f"{name} (id {i})" for i, name in names.items()}


def _check_images(path: str, rows: list[dict[str, Any]]) -> None:
    _check_ids(path, "images", rows)
    for i, row in enumerate(rows):
        for side in ("height", "width"):
            where = f"{path}: entry {i} of 'images'"
            row[side] = parse_size(row.get(side) or 0, where, side)


def _check_categories(path: str, rows: list[dict[str, Any]]) -> set[Any]:
    _check_ids(path, "categories", rows)
    for i, row in enumerate(rows):
        row["name"] = parse_name(row.get("name", row["id"]), f"{path}: entry {i} of 'categories'")
    return {row["id"] for row in rows}


def _check_ids(path: str, key: str, rows: list[dict[str, Any]]) -> None:
    seen: set[Any] = set()
    for i, row in enumerate(rows):
        value = row.get("id")
        if not is_id(value) or isinstance(value, str) is not isinstance(rows[0]["id"], str):
            raise InputError(
                f"{path}: entry {i} of '{key}' has id {value!r:.40}; write all as whole numbers"
            )
        if value in seen:
            raise InputError(
                f"{path}: id {value!r} is there twice in '{key}'; give each entry its own"
            )
        seen.add(value)


def _check_annotation(
    where: str, row: dict[str, Any], images: set[Any], categories: set[Any]
) -> None:
    for name, known, key in (
        ("image_id", images, "images"),
        ("category_id", categories, "categories"),
    ):
        value = row.get(name)
        if not is_id(value) or value not in known:
            raise InputError(
                f"{where}: {name} is {value!r:.40}, which is not in '{key}'; correct it, or see "
                "what `retinanet-ext check-data` says of the file"
            )
    if not is_box(row.get("bbox")):
        raise InputError(
            f"{where}: bbox is {row.get('bbox')!r:.60}, but must be [x, y, width, height] in "
            "pixels; `retinanet-ext check-data --fix` writes a copy without such entries"
        )
    row["iscrowd"] = int(parse_flag(row.get("iscrowd"), where, "iscrowd"))
