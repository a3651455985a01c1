"""The annotation files of the quickstart datasets, in COCO's format."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from .scenes import Scene
from .shapes import CLASS_NAMES

__all__ = ["VERSION", "coco_json", "describe_scene", "json_path"]

VERSION = 1


def json_path(folder: Path, split: str) -> Path:
    """The annotation file of a split of the dataset in ``folder``."""
    return folder / "annotations" / f"instances_{split}.json"


def describe_scene(scene: Scene, index: int) -> dict[str, Any]:
    """File name and size of image ``index`` (from 0), boxes (XYWH), classes and polygons."""
    corners = scene.boxes.round(2)
    boxes = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1).round(2)
    height, width = scene.image.shape[:2]
    return {
        "file_name": f"{index + 1:06d}.png",
        "height": height,
        "width": width,
        "boxes": boxes.tolist(),
        "classes": scene.classes.tolist(),
        "polygons": [points.round(1).ravel().tolist() for points in scene.polygons],
    }


def coco_json(name: str, split: str, images: list[dict[str, Any]], seed: int) -> dict[str, Any]:
    """The content of one annotation file, from what :func:`describe_scene` says of its images.

    All ids count from 1. ``area`` is that of the box, as it was before there were masks: results by
    size stay comparable.
    """
    info = {
        "description": f"retinanet_ext {name}, {split}: generated scenes of shapes",
        "version": str(VERSION),
        "seed": seed,
    }
    license_url = "https://creativecommons.org/publicdomain/zero/1.0/"
    keys = ("file_name", "height", "width")
    annotations: list[dict] = []
    for image_id, image in enumerate(images, start=1):
        objects = zip(image["boxes"], image["classes"], image["polygons"], strict=True)
        for box, kind, polygon in objects:
            entry = {"id": len(annotations) + 1, "image_id": image_id, "category_id": kind + 1}
            entry |= {"bbox": box, "area": round(box[2] * box[3], 2), "iscrowd": 0}
            annotations.append({**entry, "segmentation": [polygon]})
    return {
        "info": info,
        "licenses": [{"id": 1, "name": "CC0 1.0", "url": license_url}],
        "categories": [
            {"id": i, "name": name, "supercategory": "shape"}
            for i, name in enumerate(CLASS_NAMES, start=1)
        ],
        "images": [
            {"id": i, "license": 1, **{key: image[key] for key in keys}}
            for i, image in enumerate(images, start=1)
        ],
        "annotations": annotations,
    }
