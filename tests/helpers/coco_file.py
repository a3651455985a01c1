"""COCO json files, small ones, from what matters in a test."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any


def coco_file(
    path: Path,
    images: Mapping[str, tuple[int, int]],
    boxes: Iterable[Mapping[str, Any]] = (),
    categories: Mapping[int, str] | None = None,
    first_id: int = 1,
) -> Path:
    """Write a COCO json, and the folder for it; return its path.

    Args:
        path: of the file.
        images: file name -> width and height in pixels; their ids count from ``first_id``.
        boxes: annotations: ``image_id``, ``category_id``, ``bbox`` (XYWH, pixels), and whatever
            else shall be in the file; id, area and ``iscrowd`` 0 are added.
        categories: id -> name, in the order of the file; one class "thing" with id 1 if not given.
        first_id: of the images.
    """
    sizes = enumerate(images.items(), first_id)
    rows = []
    for number, box in enumerate(boxes, 1):
        _, _, width, height = box["bbox"]
        rows.append({"id": number, "area": width * height, "iscrowd": 0, **box})
    content = {
        "images": [{"id": i, "file_name": x, "width": w, "height": h} for i, (x, (w, h)) in sizes],
        "annotations": rows,
        "categories": [{"id": i, "name": x} for i, x in (categories or {1: "thing"}).items()],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path
