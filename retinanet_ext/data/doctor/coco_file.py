"""COCO json files to be written, and boxes as they should be in them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any

import numpy as np

from ...files import written_whole
from .table import DatasetTable

__all__ = ["corrections_of", "to_coco", "write_json", "xywh"]


def to_coco(table: DatasetTable) -> dict[str, Any]:
    """The content of a COCO json for a dataset of another format; paths as the table has them."""
    corners, has_id = table.xyxy, [x is not None for x in table.annotation_ids]
    images = [
        {"id": row, "file_name": os.path.abspath(path), **_recorded_size(size)}
        for row, (path, size) in enumerate(zip(table.files, table.sizes, strict=True), start=1)
    ]
    annotations = [
        {
            "id": table.annotation_ids[row] if all(has_id) else row + 1,
            "image_id": int(table.image_of[row]) + 1,
            "category_id": int(table.class_of[row]) + 1,
            "bbox": xywh(corners[row]),
            "area": float((corners[row, 2:] - corners[row, :2]).prod()),
            "iscrowd": int(table.is_crowd[row]),
        }
        for row in range(len(corners))
    ]
    categories = [{"id": i, "name": x} for i, x in enumerate(table.class_names, start=1)]
    return {"images": images, "annotations": annotations, "categories": categories}


def xywh(corners: np.ndarray) -> list[float]:
    """(4,) XYXY -> XYWH, in thousandths of a pixel."""
    x1, y1, x2, y2 = (round(float(x), 3) for x in corners)
    return [x1, y1, round(x2 - x1, 3), round(y2 - y1, 3)]


def _recorded_size(size: np.ndarray) -> dict[str, int]:
    known = np.isfinite(size).all()
    return {"width": int(size[0]), "height": int(size[1])} if known else {}


def write_json(path: str, content: Any) -> None:
    """Write a json file so that a crash leaves no half of it."""
    with written_whole(path) as new, open(new, "w", encoding="utf-8") as file:
        json.dump(content, file)


def corrections_of(table: DatasetTable, layout: str) -> dict[str, Callable[[int], np.ndarray]]:
    """The corrections of a box: from its row to its corners (4,) in pixels, by the fault's code.

    Args:
        table: of the dataset.
        layout: of its boxes between 0 and 1: "XYWH", "CXCYWH" or "XYXY".
    """
    bboxes, sizes = table.bboxes, table.image_sizes_of_boxes

    def order(row: int) -> np.ndarray:
        a, b = table.xyxy[row, :2], table.xyxy[row, 2:]
        return np.concatenate([np.minimum(a, b), np.maximum(a, b)])

    def cut(row: int) -> np.ndarray:
        return np.clip(table.xyxy[row], 0, np.tile(sizes[row], 2))

    def scale(row: int) -> np.ndarray:
        first, last = bboxes[row, :2], bboxes[row, 2:]
        if layout == "CXCYWH":
            first, last = first - last / 2, first + last / 2
        elif layout == "XYWH":
            last = first + last
        return np.concatenate([first, last]) * np.tile(sizes[row], 2)

    return {
        "box_inverted": order,
        "box_over_border": cut,
        "box_looks_xyxy": lambda row: bboxes[row],
        "box_normalised": scale,
    }
