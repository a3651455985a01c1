"""COCO json files to be written."""

from __future__ import annotations

import json
import os
from typing import Any

import numpy as np

from ...files import written_whole
from .table import DatasetTable

__all__ = ["to_coco", "write_json", "xywh"]


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
