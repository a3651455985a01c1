"""Detectron2's dicts with the boxes that training and evaluation both count."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from detectron2.structures import BoxMode
from detectron2.utils.logger import log_first_n

from ...boxes import BoxChanges, within_images
from ...errors import InputError
from ..formats import BoxTable
from ..formats.text import parse_size

__all__ = ["check_boxes", "check_masks", "keep_usable_boxes", "usable_table"]

logger = logging.getLogger(__name__)

MODES = (BoxMode.XYXY_ABS, BoxMode.XYWH_ABS)


def check_boxes(name: str, dicts: Sequence[dict[str, Any]]) -> BoxChanges | None:
    """Say once what is wrong with boxes, and stop where none can be used.

    Args:
        name: the dataset's, for messages.
        dicts: Detectron2's dataset dicts.

    Returns:
        What :func:`within_images` says of all boxes in their order; None where they are no numbers
        of Detectron2's absolute modes.

    Raises:
        ValueError: all boxes are given in 0..1, or none has a part with area in its image; or the
            size of an image is no number.
    """
    rows = [(record, x) for record in dicts for x in record.get("annotations") or ()]
    try:
        boxes = np.array([x["bbox"] for _, x in rows], np.float64).reshape(-1, 4)
        modes = np.array([MODES.index(x["bbox_mode"]) for _, x in rows], np.int64)
    except (KeyError, TypeError, ValueError):
        return None  # said elsewhere, with the annotation
    boxes[:, 2:] += np.where(modes[:, None] == 1, boxes[:, :2], 0)
    _, changes = within_images(boxes, _sizes(name, [record for record, _ in rows]))
    show = _shown(rows)
    if why := changes.why_impossible(show):
        raise InputError(f"dataset '{name}': {why}")
    if said := changes.describe(show):
        log_first_n(logging.WARNING, f"dataset '{name}': {said}", key="message")
    return changes


def check_masks(name: str, dicts: Sequence[dict[str, Any]]) -> None:
    """Raise InputError unless each object has a mask, without which a mask head cannot train."""
    objects = [x for r in dicts for x in r.get("annotations") or () if not x.get("iscrowd")]
    without = sum(not x.get("segmentation") for x in objects)
    if without:
        raise InputError(
            f"MODEL.MASK_ON is True, but {without} of {len(objects)} objects of dataset '{name}' "
            "have no mask (datasets that are given by a path have boxes only); register a COCO "
            "json with retinanet_ext.data.register_coco_dataset, or set MODEL.MASK_ON to False"
        )


def _sizes(name: str, records: list[dict[str, Any]]) -> np.ndarray:
    """(M, 2) height and width, 0 where there is none."""
    try:
        sizes = [(record.get("height") or 0, record.get("width") or 0) for record in records]
        return np.array(sizes, np.float64).reshape(-1, 2)
    except (TypeError, ValueError, OverflowError):
        for record in records:
            for side in ("height", "width"):
                where = f"dataset '{name}', image {record.get('file_name')}"
                parse_size(record.get(side) or 0, where, side)
        raise


def usable_table(table: BoxTable, annotations: str) -> BoxTable:
    """The boxes that can be learned and found; says once what was changed of the others.

    Args:
        table: as read.
        annotations: what was read, for messages.

    Raises:
        ValueError: as :func:`check_boxes`.
    """
    usable, changes = table.within_images()
    if why := changes.why_impossible(table.show_box):
        raise InputError(f"{annotations}: {why}")
    if said := changes.describe(table.show_box):
        logger.warning("%s: %s", annotations, said)
    return usable


def keep_usable_boxes(name: str, dicts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """``dicts`` without the boxes that cannot be used, in place; see :func:`check_boxes`.

    Corners in the wrong order and boxes over the border stay: the mappers of training put both
    right after each transform.
    """
    changes = check_boxes(name, dicts)
    if changes is None or changes.kept.all():
        return dicts
    kept = iter(changes.kept.tolist())
    for record in dicts:
        if record.get("annotations"):
            record["annotations"] = [x for x in record["annotations"] if next(kept)]
    return dicts


def _shown(rows: list[tuple[dict[str, Any], dict[str, Any]]]) -> Callable[[int], str]:
    def show(row: int) -> str:
        record, annotation = rows[row]
        kind = "XYWH" if annotation["bbox_mode"] == BoxMode.XYWH_ABS else "XYXY"
        return f"{record.get('file_name')} {list(annotation['bbox'])} ({kind})"

    return show
