"""COCO's instances json; boxes only."""

from __future__ import annotations

import json
import logging
import math
import os
from pathlib import Path
from typing import Any

from ...errors import InputError, MissingFileError, listed
from .builder import TableBuilder
from .table import BoxTable, Inputs, Source
from .text import parse_number, unique_names

__all__ = ["read_coco"]

logger = logging.getLogger(__name__)

PROBED_IMAGES = 5


def read_coco(source: Source, inputs: Inputs) -> BoxTable:
    """Read a json; classes in the order of their ids, images too, as Detectron2 has them.

    Ids may have gaps. ``ignore: 1`` counts as ``iscrowd: 1``.

    Raises:
        ValueError: the file is no such json, or an annotation lacks a box or a known category.
        FileNotFoundError: the images are not found.
    """
    path = source.annotations
    inputs.add(path)
    content = _load(path)
    images = _by_id(content["images"], path)
    categories = sorted(content["categories"], key=lambda c: c["id"])
    names = unique_names([str(c["name"]) for c in categories], f"{path}, categories")
    class_of = {c["id"]: i for i, c in enumerate(categories)}
    folder = source.images or find_images(Path(path), [x["file_name"] for x in images])
    builder = TableBuilder(names, inputs)
    own_ids = all(type(x["id"]) is int for x in images)
    index = {
        x["id"]: builder.add_image(
            os.path.join(folder, x["file_name"]),
            int(x.get("height") or 0),
            int(x.get("width") or 0),
            x["id"] if own_ids else None,
        )
        for x in images
    }
    lost = 0
    for number, annotation in enumerate(content["annotations"]):
        where = f"{path}, annotation {annotation.get('id', f'number {number}')}"
        image = index.get(annotation.get("image_id"))
        if image is None:
            lost += 1
            continue
        category = annotation.get("category_id")
        if category not in class_of:
            raise InputError(
                f"{where}: category_id is {category!r}, which is not in 'categories' "
                f"({listed([c['id'] for c in categories])})"
            )
        crowd = bool(annotation.get("iscrowd") or annotation.get("ignore"))
        builder.add_box(image, _box(annotation.get("bbox"), where), class_of[category], crowd)
    if lost:
        logger.warning("%s: %d annotations belong to no image of the file; left out", path, lost)
    whole = own_ids and _is_ground_truth(content)
    return builder.build([c["id"] for c in categories] if whole else [])


def _load(path: str) -> dict[str, Any]:
    try:
        with open(path, encoding="utf-8") as file:
            content = json.load(file)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not json: {error}") from error
    for key, fields in (("images", ("id", "file_name")), ("categories", ("id", "name"))):
        rows = content.get(key) if isinstance(content, dict) else None
        if not isinstance(rows, list) or not rows:
            raise InputError(f"{path} is not a COCO json: it has no list '{key}'")
        for i, row in enumerate(rows):
            if not isinstance(row, dict) or any(name not in row for name in fields):
                raise InputError(f"{path}: entry {i} of '{key}' has no {' or '.join(fields)}")
    rows = content.setdefault("annotations", [])  # there are none if all images are negative
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise InputError(f"{path} is not a COCO json: 'annotations' is not a list of objects")
    return content


def _by_id(images: list[dict], path: str) -> list[dict]:
    found: dict[Any, dict] = {}
    for image in images:
        if image["id"] in found:
            raise InputError(
                f"{path}: image id {image['id']!r} is there twice, for "
                f"{found[image['id']]['file_name']} and {image['file_name']}"
            )
        found[image["id"]] = image
    return [found[key] for key in sorted(found, key=lambda x: (isinstance(x, str), x))]


def _box(box: Any, where: str) -> tuple[float, float, float, float]:
    if not isinstance(box, (list, tuple)) or len(box) != 4:
        raise InputError(f"{where}: bbox is {box!r}, but must be [x, y, width, height]")
    x, y, width, height = box
    try:
        fine = math.isfinite(x + y + width + height)  # one test for four, of a million boxes
    except (TypeError, OverflowError):
        fine = False
    if not fine:
        x, y, width, height = (parse_number(value, where, "bbox") for value in box)
    return x, y, x + width, y + height


def _is_ground_truth(content: dict[str, Any]) -> bool:
    """Whether COCO's code can evaluate with the file itself: numbers where it wants numbers.

    Ids of annotations are unique and not 0, nothing is ``ignore``, images have their sizes.
    """
    annotations = content["annotations"]
    ids = {a.get("id") for a in annotations}
    return (
        len(ids) == len(annotations)
        and not ids & {0, None}
        and all(type(x) is int for x in ids)
        and all(type(c["id"]) is int for c in content["categories"])
        and not any(a.get("ignore") for a in annotations)
        and all(a.get("iscrowd", 0) in (0, 1) for a in annotations)
        and all(type(v) in (int, float) for a in annotations for v in a["bbox"])
        and all(x.get("height") and x.get("width") for x in content["images"])
    )


def find_images(path: Path, names: list[str]) -> str:
    """The folder that the first file names start from, among the usual ones."""
    split = path.stem.removeprefix("instances_")
    root, beside = path.parent.parent, path.parent
    folders = [
        beside,
        beside / "images",
        beside / split,
        beside / path.stem,
        root,
        root / "images",
        root / split,
        root / "images" / split,
    ]
    for folder in folders:
        if any((folder / name).is_file() for name in names[:PROBED_IMAGES]):
            return str(folder)
    looked = ", ".join(str(folder) for folder in dict.fromkeys(folders))
    raise MissingFileError(
        f"{path}: image {names[0]} is in none of {looked}; say where, as {path}:IMAGE_DIR or IMAGES"
    )
