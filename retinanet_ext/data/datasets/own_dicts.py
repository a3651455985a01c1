"""Dataset dicts of a user's own function: what Detectron2 and COCO's code take for granted.

Without a look, a dict that lacks something ends a run after hours, when it is evaluated.
"""

from __future__ import annotations

import numbers
import os
from collections.abc import Iterable, Sequence
from typing import Any

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog

from ...errors import InputError

__all__ = ["check_own_datasets", "check_own_dicts", "is_own"]


def is_own(name: str) -> bool:
    """Whether a registered dataset is a function of the user's: not ours, nor a COCO json's."""
    return (
        getattr(DatasetCatalog[name], "origin", "") == ""
        and MetadataCatalog.get(name).get("json_file") is None
    )


def check_own_datasets(cfg: CfgNode) -> None:
    """Load the user's own datasets of ``cfg`` and check their dicts; others are passed over.

    Raises:
        ValueError: see :func:`check_own_dicts`.
    """
    for name in dict.fromkeys((*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST)):
        if name in DatasetCatalog and is_own(name):
            check_own_dicts(name, DatasetCatalog.get(name), name in cfg.DATASETS.TEST)


def check_own_dicts(name: str, dicts: Any, evaluates: bool) -> None:
    """Check the form of a dataset's dicts; what is in the boxes is checked elsewhere.

    Args:
        name: of the dataset.
        dicts: what its function returned; anything but a list (a map-style dataset) is passed over.
        evaluates: whether COCO's evaluation will read them, which needs image ids.

    Raises:
        ValueError: names dataset, entry, field and value, and what it must be.
    """
    if not isinstance(dicts, list | tuple):
        return
    seen: dict[Any, int] = {}
    evaluates = evaluates and MetadataCatalog.get(name).get("evaluator_type", "coco") == "coco"
    for number, record in enumerate(dicts):
        where = f"dataset '{name}', entry {number}"
        if not isinstance(record, dict):
            raise InputError(f"{where}: is {_shown(record)}, but must be a dict")
        file_name = record.get("file_name")
        if file_name is not None:
            where += f" ({file_name})"
            if not isinstance(file_name, str | os.PathLike):
                raise InputError(f"{where}: file_name must be the path of a picture")
        for side in ("height", "width"):
            size = record.get(side)
            if size is not None and not _is_length(size):
                raise InputError(f"{where}: {side} is {_shown(size)}, but must be pixels from 1")
        _check_annotations(record, where)
        if evaluates:
            _check_id(record, where, seen, number)


def _check_annotations(record: dict[str, Any], where: str) -> None:
    if "annotations" not in record:
        return
    annotations = record["annotations"]
    if not isinstance(annotations, Sequence) or isinstance(annotations, str):
        raise InputError(
            f"{where}: annotations is {_shown(annotations)}, but must be a list; [] for a picture "
            "without objects"
        )
    _require_dicts(annotations, where)


def _require_dicts(annotations: Iterable[Any], where: str) -> None:
    for i, annotation in enumerate(annotations):
        if not isinstance(annotation, dict):
            raise InputError(
                f"{where}, annotation {i}: is {_shown(annotation)}, but must be a dict"
            )
        for key in ("bbox", "bbox_mode", "category_id"):
            if annotation.get(key) is None:
                raise InputError(f"{where}, annotation {i}: has no {key}; add it")


def _check_id(record: dict[str, Any], where: str, seen: dict[Any, int], number: int) -> None:
    key = record.get("image_id")
    if key is None:
        raise InputError(
            f"{where}: has no image_id, which the evaluation needs; give each picture a number of "
            "its own"
        )
    if isinstance(key, bool) or not isinstance(key, str | numbers.Integral):
        raise InputError(f"{where}: image_id is {_shown(key)}, but must be a number or a text")
    if key in seen:
        raise InputError(
            f"{where}: image_id {key!r} is that of entry {seen[key]}, too, so their boxes would be "
            "mixed; give each picture its own"
        )
    seen[key] = number


def _is_length(value: Any) -> bool:
    return not isinstance(value, bool) and isinstance(value, numbers.Real) and float(value) >= 1


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
