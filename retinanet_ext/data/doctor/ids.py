"""Ids, categories and file names: what the lists of images and annotations say of themselves."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Hashable, Iterable, Mapping
from typing import Any

import numpy as np

from ...errors import listed
from .findings import Fault
from .images import ImageFacts
from .table import DatasetTable

__all__ = ["check_lists", "missing_files", "repeated"]


def check_lists(table: DatasetTable, facts: Mapping[str, ImageFacts]) -> list[Fault]:
    """Faults of ids, categories and recorded sizes and names.

    A size that is not known because ``facts`` say that the image cannot be read is none.
    """
    unread = np.array([x in facts and bool(facts[x].problem) for x in table.files], dtype=bool)
    again = repeated(table.image_ids)
    same_file = repeated(os.path.normpath(x) if x else None for x in table.files)
    for row in again:  # one entry is one fault
        same_file.pop(row, None)
    no_id = [x is None or not f for x, f in zip(table.image_ids, table.files, strict=True)]
    num_boxes = len(table.bboxes)
    known = listed([repr(x) for x in table.category_ids])
    faults = [
        _at("duplicate_image_id", "image", again, lambda i: _again(table.image_ids[i], "image id")),
        _at(
            "duplicate_image",
            "image",
            same_file,
            lambda i: f"the list of images has this file twice (image id {table.image_ids[i]!r})",
        ),
        Fault.where(
            "missing_id",
            "image",
            np.array(no_id, dtype=bool),
            lambda i: f"entry {i} of the images has no id or no file name",
        ),
        Fault.where(
            "missing_size",
            "image",
            np.isnan(table.sizes).any(axis=1) & ~unread,
            lambda i: f"no width or height recorded (image id {table.image_ids[i]!r})",
        ),
        Fault.where(
            "unknown_image",
            "box",
            table.image_of < 0,
            lambda i: f"image_id {table.recorded_image_ids[i]!r} is in no entry of the images",
        ),
        Fault.where(
            "unknown_category",
            "box",
            table.class_of < 0,
            lambda i: (
                f"category_id {table.recorded_categories[i]!r} is none of the "
                f"{len(table.category_ids)} categories [{known}]"
            ),
        ),
        *_category_faults(table),
    ]
    if not table.needs_ids:
        return faults
    ids = table.annotation_ids
    without = np.fromiter((x is None for x in ids), bool, num_boxes)
    zero = np.fromiter((type(x) is int and x == 0 for x in ids), bool, num_boxes)
    return [
        *faults,
        _at(
            "duplicate_annotation_id",
            "box",
            repeated(ids),
            lambda i: _again(ids[i], "annotation id"),
        ),
        Fault.where(
            "missing_id", "box", without, lambda i: f"entry {i} of the annotations has no id"
        ),
        Fault.where(
            "annotation_id_zero",
            "box",
            zero,
            lambda _: "annotation id 0: COCO's evaluation takes a match with it for no match",
        ),
    ]


def missing_files(table: DatasetTable, facts: Mapping[str, ImageFacts]) -> Fault:
    """Images without ``facts`` that are not there.

    Each folder is listed once, which is quick for many files.
    """
    found: dict[str, set[str]] = {}
    missing = []
    for row, path in enumerate(table.files):
        if path in facts:
            continue
        folder, name = os.path.split(path)
        if folder not in found:
            try:
                found[folder] = set(os.listdir(folder or "."))
            except OSError:
                found[folder] = set()
        # The second look is for file systems that take names in any case.
        if path and name not in found[folder] and (not found[folder] or not os.path.exists(path)):
            missing.append(row)
    rows = np.array(missing, dtype=np.int64)
    return Fault("missing_image", "image", rows, lambda _: "the image file does not exist")


def repeated(values: Iterable[Any]) -> dict[int, int]:
    """Places of values that came before -> first place of the same value; None never repeats."""
    values = list(values)
    with contextlib.suppress(TypeError):  # some value cannot be hashed
        if len(set(values)) == len(values):
            return {}  # in most files, and much quicker than the loop
    first: dict[Hashable, int] = {}
    again = {}
    for row, value in enumerate(values):
        if value is None:
            continue
        # A list as an id is a fault of its own; its text stands for it here.
        key = value if isinstance(value, Hashable) else repr(value)
        place = first.setdefault(key, row)
        if place != row:
            again[row] = place
    return again


def _category_faults(table: DatasetTable) -> list[Fault]:
    faults = []
    for what, values in (("id", table.category_ids), ("name", table.class_names)):
        for row in repeated(values):
            text = f"category {what} {values[row]!r} is used twice"
            faults.append(Fault.of_dataset("duplicate_category", text))
    return faults


def _at(code: str, of: Any, places: Iterable[int], message: Any) -> Fault:
    return Fault(code, of, np.array(list(places), dtype=np.int64), message)


def _again(value: Any, what: str) -> str:
    return f"{what} {value!r} was used before"
