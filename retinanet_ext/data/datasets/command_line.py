"""``--train`` and ``--val``: datasets named on the command line become entries of the config."""

from __future__ import annotations

import os
from typing import Any

from detectron2.config import CfgNode

from ...errors import InputError
from ..formats import Source, detect, yolo_subsets
from .by_path import absolute

__all__ = ["NAMES", "name_datasets", "split_flag"]

NAMES = {"train": "custom_train", "val": "custom_val"}


def name_datasets(
    cfg: CfgNode, train: str | None, val: str | None, classes: str | None = None
) -> None:
    """Write what ``--train`` and ``--val`` say into ``DATASETS.EXTRA``, ``TRAIN`` and ``TEST``.

    Without ``val``, validation images are the "val" list of a YOLO data.yaml, or else a fraction of
    ``DATASETS.VAL_FRACTION``. The config then says all that is needed to do the same again.

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


def _row(flag: str, part: str, classes: str | None) -> dict[str, Any]:
    """An entry of ``DATASETS.EXTRA`` with absolute paths."""
    annotations, images = split_flag(flag)
    source = detect(Source(absolute(annotations), absolute(images)))
    row = {"NAME": NAMES[part], "ANNOTATIONS": source.annotations, "FORMAT": source.format}
    if source.images:
        row["IMAGES"] = source.images
    if classes:
        row["CLASSES"] = absolute(classes)
    if source.format == "yolo":
        listed = yolo_subsets(source.annotations)
        row["SUBSET"] = part if part in listed or not listed else listed[0]
    return row


def _divided(row: dict[str, Any], fraction: float) -> dict[str, dict[str, Any]]:
    """The entries of a training and a validation part, from one for both."""
    own_lists = row["FORMAT"] == "yolo" and "IMAGES" not in row
    if own_lists and "val" in yolo_subsets(row["ANNOTATIONS"]) and row["SUBSET"] == "train":
        return {"train": row, "val": {**row, "NAME": NAMES["val"], "SUBSET": "val"}}
    if fraction == 0:
        return {"train": row}
    return {part: {**row, "NAME": NAMES[part], "SPLIT": part} for part in ("train", "val")}
