"""Small tables of objects, and the anchors of the paper, for the tests of anchor_tools."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from detectron2.structures import BoxMode

from retinanet_ext.anchor_tools import AnchorShape, TrainingBoxes, resized_boxes
from retinanet_ext.boxes import AnchorLevel
from retinanet_ext.data.doctor import DatasetTable, from_dataset_dicts

STRIDES = (8.0, 16.0, 32.0)
PAPER = AnchorShape(32.0, 3, (0.5, 1.0, 2.0))
IOU_BANDS = ((0.4, 0.5), (0, -1, 1))


def levels(shape: AnchorShape = PAPER) -> list[AnchorLevel]:
    return shape.levels(STRIDES, 0.5)


def table_of(
    images: Sequence[Sequence[Sequence[float]]], width: int = 320, height: int = 240
) -> DatasetTable:
    """One image per list of XYXY boxes; the classes take turns."""
    records = []
    for i, boxes in enumerate(images):
        annotations = [
            {"bbox": list(box), "bbox_mode": BoxMode.XYXY_ABS, "category_id": k % 2}
            for k, box in enumerate(boxes)
        ]
        size = {"width": width, "height": height}
        records.append({"file_name": f"/{i}.png", **size, "annotations": annotations})
    return from_dataset_dicts(records, ("cat", "dog"), "pets")


def random_images(
    num: int, aspect: tuple[float, float], seed: int = 0, per_image: int = 4
) -> list[np.ndarray]:
    """Boxes of 320 x 240 images, height / width within ``aspect``."""
    rng = np.random.default_rng(seed)
    images = []
    for _ in range(num):
        side = rng.uniform(24, 70, per_image)
        root = np.sqrt(np.exp(rng.uniform(*np.log(aspect), per_image)))
        size = np.stack([side / root, np.minimum(side * root, 230)], axis=1)
        corner = rng.uniform(0, 1, (per_image, 2)) * ([320, 240] - size)
        images.append(np.concatenate([corner, corner + size], axis=1))
    return images


def scene(num: int = 3, aspect: tuple[float, float] = (0.4, 2.5), seed: int = 0) -> TrainingBoxes:
    """At their own size."""
    return resized_boxes(table_of(random_images(num, aspect, seed)), (240,), 1000)


def tall_scene() -> TrainingBoxes:
    """Objects five to eight times as tall as wide, such as poles, which the paper's ratios miss."""
    return scene(8, (5.0, 8.0))
