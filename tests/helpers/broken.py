"""Small COCO datasets on disk, good ones and deliberately broken ones."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from retinanet_ext.data.doctor import DatasetTable, Finding, find_faults, from_coco_json
from retinanet_ext.data.doctor import read_images as read
from retinanet_ext.data.doctor.findings import list_findings

WIDTH, HEIGHT = 96, 64
CLASSES = ("cat", "dog")
NUM_IMAGES = 4


def good_content() -> dict[str, Any]:
    """Four images of 96 x 64, two boxes in each; category ids with a gap."""
    images = [
        {"id": i, "file_name": f"{i}.png", "width": WIDTH, "height": HEIGHT}
        for i in range(1, NUM_IMAGES + 1)
    ]
    boxes = [[4.0, 6.0, 30.0, 24.0], [50.0, 20.0, 40.0, 40.0]]
    annotations = [
        {
            "id": 10 * i + k,
            "image_id": i,
            "category_id": 3 + 4 * k,
            "bbox": list(boxes[k]),
            "area": boxes[k][2] * boxes[k][3],
            "iscrowd": 0,
        }
        for i in range(1, NUM_IMAGES + 1)
        for k in range(2)
    ]
    categories = [{"id": 3, "name": "cat"}, {"id": 7, "name": "dog"}]
    return {"images": images, "annotations": annotations, "categories": categories}


def write(folder: Path, content: Any, name: str = "train") -> tuple[Path, Path]:
    """Write ``<folder>/<name>.json`` and noise as images in ``<folder>/<name>/``."""
    image_root = folder / name
    image_root.mkdir(parents=True)
    seed = sum(map(ord, name))  # other pixels in another set
    for i in range(1, NUM_IMAGES + 1):
        pixels = np.random.default_rng(seed + i).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
        Image.fromarray(pixels).save(image_root / f"{i}.png")
    json_file = folder / f"{name}.json"
    json_file.write_text(json.dumps(content))
    return json_file, image_root


def edited(**of_first: Any) -> dict[str, Any]:
    """Good content, with entries of the first annotation changed."""
    content = copy.deepcopy(good_content())
    content["annotations"][0].update(of_first)
    return content


def findings_of(
    json_file: Path, image_root: Path | str, read_images: bool = False
) -> list[Finding]:
    """All findings of lists, boxes and files."""
    table = from_coco_json(json_file, image_root, "train")
    return findings_of_table(table, read_images)


def findings_of_table(table: DatasetTable, read_images: bool = False) -> list[Finding]:
    facts = read(table.files) if read_images else None
    return list_findings(table, find_faults(table, facts), 1000)
