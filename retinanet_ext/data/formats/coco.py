"""COCO's instances json; boxes only."""

from __future__ import annotations

import logging
import math
import os
from itertools import chain
from typing import Any

from ...errors import InputError, listed
from .builder import CONTROL, SIDES, TableBuilder, is_ground_truth
from .places import find_images
from .plain_text import read_json
from .table import BoxTable, Inputs, Source
from .text import parent_ids, parse_flag, parse_name, parse_number, parse_size, unique_names

__all__ = ["read_coco"]

logger = logging.getLogger(__name__)

PROBED_IMAGES = 5  # to see whether a folder has moved
MAX_ID = 2**63 - 1  # of a table; larger ones are numbered again


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
    annotations = content["annotations"]
    categories = _categories(content, path)
    names = unique_names([c["name"] for c in categories], f"{path}, categories")
    class_of = {c["id"]: i for i, c in enumerate(categories)}
    place = find_images(path, [x["file_name"] for x in images], source.images)
    builder = TableBuilder(names, inputs)
    own_ids = all(type(x["id"]) is int and abs(x["id"]) <= MAX_ID for x in images)
    index: dict[Any, int] = {}
    first_of: dict[str, dict] = {}
    joined = []
    for x in images:
        name = os.path.normpath(x["file_name"])
        if name in first_of:
            first = first_of[name]
            _check_is_one_picture(first, x, path)
            joined.append((x["file_name"], first["id"], x["id"]))
            index[x["id"]] = index[first["id"]]
            continue
        first_of[name] = x
        index[x["id"]] = builder.add_image(
            place.path(x["file_name"]),
            x["height"],
            x["width"],
            x["id"] if own_ids else None,
        )
    if joined:
        logger.warning(
            "%s: %d pictures are listed twice, first %s with image ids %r and %r; the boxes of "
            "both entries count for the one picture",
            path,
            len(joined),
            *joined[0],
        )
    lost = 0
    typed, plain = _are_typed(annotations), _are_plain(annotations)
    for number, annotation in enumerate(annotations):
        image_id, category = annotation.get("image_id"), annotation.get("category_id")
        if not typed:
            _check_types(image_id, category, _place(path, number, annotation))
        image = index.get(image_id)
        if image is None:
            lost += 1
            continue
        if category not in class_of:
            raise InputError(
                f"{_place(path, number, annotation)}: category_id is {category!r}, "
                f"which is not in 'categories' ({listed([c['id'] for c in categories])})"
            )
        crowd, ignored = annotation.get("iscrowd", 0), annotation.get("ignore", 0)
        if crowd != 0 or ignored != 0:  # "0" and [0] are true to Python, and [] is false
            where = _place(path, number, annotation)
            crowd = parse_flag(crowd, where, "iscrowd") | parse_flag(ignored, where, "ignore")
        box = _box(annotation.get("bbox"), plain, path, number, annotation)
        builder.add_box(image, box, class_of[category], bool(crowd))
    texts = {str(x["id"]) for x in images} if lost and lost == len(annotations) else set()
    if any(str(a.get("image_id")) in texts for a in annotations):
        raise InputError(
            f"{path}: no annotation belongs to an image of the file: the first has image_id "
            f"{annotations[0].get('image_id')!r}, and the first image has id {images[0]['id']!r}; "
            "write them alike, as whole numbers"
        )
    if lost:
        logger.warning("%s: %d annotations belong to no image of the file; left out", path, lost)
    whole = own_ids and not joined and is_ground_truth(content)
    return builder.build([c["id"] for c in categories] if whole else [])


def _load(path: str) -> dict[str, Any]:
    content = read_json(path)
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
    """The entries in the order of their ids, their fields of the types that they should have."""
    found: dict[Any, dict] = {}
    for number, image in enumerate(images):
        where, key, name = f"{path}, entry {number} of 'images'", image["id"], image["file_name"]
        if not _is_id(key):
            raise InputError(f"{where}: id is {key!r}, but must be a number or a text")
        if not isinstance(name, str) or not name.strip() or CONTROL.search(name):
            raise InputError(f"{where}: file_name is {name!r}, but must be the name of a file")
        sizes = {side: image.get(side) or 0 for side in SIDES}
        for side, size in sizes.items():
            sizes[side] = parse_size(size, f"{where} ({name})", side)
        if key in found:
            raise InputError(
                f"{path}: image id {key!r} is there twice, for {found[key]['file_name']} and {name}"
            )
        found[key] = {"id": key, "file_name": name.replace("\\", "/"), **sizes}
    return [found[key] for key in sorted(found, key=lambda x: (isinstance(x, str), x))]


def _check_is_one_picture(first: dict, again: dict, path: str) -> None:
    """Two entries of one file name and of two sizes are two pictures, one with a wrong name."""
    sizes = [(x["width"], x["height"]) for x in (first, again)]
    if 0 not in (*sizes[0], *sizes[1]) and sizes[0] != sizes[1]:
        (w1, h1), (w2, h2) = sizes
        raise InputError(
            f"{path}: image ids {first['id']!r} and {again['id']!r} both name the picture "
            f"{first['file_name']}, but with sizes {w1} x {h1} and {w2} x {h2}, so one of them "
            "means another picture; correct its file_name"
        )


def _categories(content: dict[str, Any], path: str) -> list[dict[str, Any]]:
    """Id and name of each category in the order of their ids, all of one type."""
    rows: dict[Any, dict[str, Any]] = {}
    for number, row in enumerate(content["categories"]):
        where, key = f"{path}, entry {number} of 'categories'", row["id"]
        first = content["categories"][0]["id"]
        if not _is_id(key):
            raise InputError(f"{where}: id is {key!r}, but must be a number or a text")
        if key in rows:
            raise InputError(f"{where}: id {key!r} is there twice; give each category its own")
        if isinstance(key, str) is not isinstance(first, str):
            raise InputError(
                f"{where}: id is {key!r}, and that of the first is {first!r}; write all as numbers "
                "or all as texts"
            )
        rows[key] = {"id": key, "name": parse_name(row["name"], f"{where}: name")}
    return _without_parents([rows[key] for key in sorted(rows)], content, path)


def _without_parents(
    rows: list[dict[str, Any]], content: dict[str, Any], path: str
) -> list[dict[str, Any]]:
    parents = parent_ids(
        content["categories"], {str(a.get("category_id")) for a in content["annotations"]}
    )
    kept = [row for row in rows if str(row["id"]) not in parents]
    if len(kept) < len(rows):
        logger.warning(
            "%s: categories without annotations that stand above others are left out: ids %s",
            path,
            listed([f"{row['id']} ({row['name']})" for row in rows if row not in kept]),
        )
    return kept


def _is_id(value: Any) -> bool:
    return isinstance(value, int | str) and not isinstance(value, bool)


def _are_typed(annotations: list[dict]) -> bool:
    kinds = {type(a.get("image_id")) for a in annotations}
    kinds |= {type(a.get("category_id")) for a in annotations}
    return kinds <= {int, str}


def _are_plain(annotations: list[dict]) -> bool:
    """Whether all numbers of boxes are numbers; otherwise each is looked at by itself."""
    try:
        numbers = chain.from_iterable(a["bbox"] for a in annotations)
        return set(map(type, numbers)) <= {int, float}
    except (KeyError, TypeError):
        return False


def _check_types(image_id: Any, category: Any, where: str) -> None:
    for what, value in (("image_id", image_id), ("category_id", category)):
        if isinstance(value, bool | list | dict):
            raise InputError(f"{where}: {what} is {value!r}, but must be a number or a text")


def _place(path: str, number: int, annotation: dict) -> str:
    """Where an annotation is, for messages: made only when there is one."""
    return f"{path}, annotation {annotation.get('id', f'number {number}')}"


def _box(
    box: Any, plain: bool, path: str, number: int, annotation: dict
) -> tuple[float, float, float, float]:
    if not isinstance(box, (list, tuple)) or len(box) != 4:
        where = _place(path, number, annotation)
        has_mask = bool(annotation.get("segmentation"))
        fix = "write the bounds of its mask there" if has_mask else "correct or remove it"
        raise InputError(f"{where}: bbox is {box!r}, but must be [x, y, width, height]; {fix}")
    x, y, width, height = box
    try:
        # One test for four, of a million boxes.
        fine = plain and math.isfinite(x + y + width + height)
    except (TypeError, OverflowError):
        fine = False
    if not fine:
        where = _place(path, number, annotation)
        x, y, width, height = (parse_number(value, where, "bbox") for value in box)
    return x, y, x + width, y + height
