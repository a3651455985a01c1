"""``--train`` and ``--val``: datasets named on the command line become entries of the config."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from typing import Any

from detectron2.config import CfgNode

from ...errors import InputError, UserError, count
from ..formats import Source, detect, has_val, yolo_subsets
from .entries import absolute

__all__ = ["NAMES", "describe_rows", "has_own_val", "name_datasets", "source_of", "split_flag"]

NAMES = {"train": "custom_train", "val": "custom_val"}


def name_datasets(
    cfg: CfgNode, train: str | None, val: str | None, classes: str | None = None
) -> None:
    """Write what ``--train`` and ``--val`` say into ``DATASETS.EXTRA``, ``TRAIN`` and ``TEST``.

    Without ``val``, validation images are those that ``train`` has itself (:func:`has_own_val`), or
    else a fraction of ``DATASETS.VAL_FRACTION``. The config then says all that is needed to do the
    same again.

    Args:
        cfg: is changed.
        train, val: ``ANNOTATIONS[:IMAGE_DIR]``, or None.
        classes: file of class names for formats that list none.

    Raises:
        ValueError, OSError: the annotations are not there, or of no known format.
    """
    rows: dict[str, dict[str, Any]] = {}
    if train is not None:
        rows["train"] = _row(train, "train", classes)
    if val is not None:
        rows["val"] = _row(val, "val", classes)
    elif train is not None and has_own_val(train):
        rows["val"] = _row(train, "val", classes)
    elif train is not None:
        rows |= _divided(rows["train"], cfg.DATASETS.VAL_FRACTION)
    elif classes is not None:
        raise InputError("--classes goes with --train or --val, and neither is there")
    if train is not None:
        cfg.DATASETS.TRAIN = (NAMES["train"],)
        cfg.DATASETS.TEST = ()
    if "val" in rows:
        cfg.DATASETS.TEST = (NAMES["val"],)
    new = {row["NAME"]: row for row in rows.values()}
    kept = [
        row for row in cfg.DATASETS.EXTRA if not isinstance(row, dict) or row.get("NAME") not in new
    ]
    cfg.DATASETS.EXTRA = [*kept, *new.values()]


def describe_rows(cfg: CfgNode, train_images: int, val_images: int) -> str:
    """What :func:`name_datasets` took for what, in one line.

    Args:
        cfg: with its entries.
        train_images, val_images: how many pictures were read.
    """
    rows = {row["NAME"]: row for row in cfg.DATASETS.EXTRA}
    train, val = (rows.get(NAMES[part]) for part in ("train", "val"))
    assert train is not None, "name_datasets has named it"
    line = f"training: {_told(train)} ({train['FORMAT']}), {count(train_images, 'picture')}"
    if val is None:
        return f"{line}; validation: none"
    if train.get("SPLIT"):
        return f"{line}; validation: {count(val_images, 'picture')} of it, held back"
    return f"{line}; validation: {_told(val)}, {count(val_images, 'picture')}"


def _told(row: dict[str, Any]) -> str:
    """The path of an entry, from the current folder where that is shorter, and its list."""
    path = row["ANNOTATIONS"]
    with contextlib.suppress(ValueError):  # another drive
        path = min(path, os.path.relpath(path), key=len)
    return f"{path} ({row['SUBSET']})" if row.get("SUBSET") else path


def split_flag(value: str) -> tuple[str, str]:
    """``ANNOTATIONS[:IMAGE_DIR]`` as two paths; Windows drives (``C:\\\\a``) stay whole."""
    if os.path.exists(value):
        return value, ""
    parts: list[str] = []
    for piece in value.split(":"):
        drive = parts and len(parts[-1]) == 1 and parts[-1].isalpha() and piece[:1] in "\\/"
        if drive and piece:
            parts[-1] += f":{piece}"
        else:
            parts.append(piece)
    if len(parts) > 2 or not all(parts):
        raise InputError(f"'{value}' is not of the form ANNOTATIONS[:IMAGE_DIR]")
    return parts[0], parts[1] if len(parts) == 2 else ""


def source_of(flag: str, part: str, classes: str = "") -> Source:
    """What ``--train`` or ``--val`` names, ready to be read.

    Args:
        flag: ``ANNOTATIONS[:IMAGE_DIR]``.
        part: "train" or "val", for what holds both: a YOLO data.yaml, a folder of such folders, a
            folder with a file for each.
        classes: file of class names for formats that list none.

    Raises:
        ValueError, OSError: the annotations are not there, or of no known format.
    """
    annotations, images = split_flag(flag)
    source = Source(absolute(annotations), absolute(images), classes=absolute(classes), subset=part)
    source = detect(source)
    if source.format != "yolo":
        return dataclasses.replace(source, subset="")
    listed = yolo_subsets(source.annotations)
    return dataclasses.replace(source, subset=part if part in listed or not listed else listed[0])


def has_own_val(flag: str) -> bool:
    """Whether what ``--train`` names holds a validation set, too.

    That is the "val" list of a YOLO data.yaml, and in a folder the folder or file of that name.

    Raises:
        ValueError, OSError: see :func:`source_of`.
    """
    if split_flag(flag)[1]:  # all of these images are meant
        return False
    train, val = source_of(flag, "train"), None
    if train.format == "yolo":
        return train.subset == "train" and has_val(train.annotations)
    with contextlib.suppress(UserError):
        val = source_of(flag, "val")
    return val is not None and val.annotations != train.annotations


def _row(flag: str, part: str, classes: str | None) -> dict[str, Any]:
    """An entry of ``DATASETS.EXTRA`` with absolute paths."""
    source = source_of(flag, part, classes or "")
    row = {"NAME": NAMES[part], "ANNOTATIONS": source.annotations, "FORMAT": source.format}
    for key, value in (
        ("IMAGES", source.images),
        ("CLASSES", source.classes),
        ("SUBSET", source.subset),
    ):
        if value:
            row[key] = value
    return row


def _divided(row: dict[str, Any], fraction: float) -> dict[str, dict[str, Any]]:
    """The entries of a training and a validation part, from one for both."""
    if fraction == 0:
        return {"train": row}
    return {part: {**row, "NAME": NAMES[part], "SPLIT": part} for part in ("train", "val")}
