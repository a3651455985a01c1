"""A Predictor with random weights that detects much, and pictures and objects for it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.modeling import build_model
from PIL import Image

from retinanet_ext import Predictor
from retinanet_ext.inference.raw_heads import RawHeads

from .parity import spread_predictions
from .tiny import CLASSES, tiny_cfg

__all__ = ["SIZES", "annotations_of", "predictor_of", "truth_of", "write_pictures"]

SIZES = ((64, 80), (100, 70), (90, 90))


def predictor_of(folder: Path, keys: dict[str, Any]) -> Predictor:
    cfg = tiny_cfg(folder, keys)
    torch.manual_seed(0)
    model = build_model(cfg)
    spread_predictions(model)
    torch.save({"model": model.state_dict(), "thing_classes": list(CLASSES)}, folder / "w.pth")
    cfg.MODEL.WEIGHTS = str(folder / "w.pth")
    return Predictor(cfg)


def write_pictures(folder: Path) -> dict[int, str]:
    rng = np.random.default_rng(0)
    paths = {}
    for i, (height, width) in enumerate(SIZES, start=1):
        coarse = rng.integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
        picture = Image.fromarray(coarse).resize((width, height), Image.Resampling.BILINEAR)
        paths[i] = str(folder / f"{i}.png")
        picture.save(paths[i])
    return paths


def truth_of(
    predictor: Predictor, paths: dict[int, str], number: int = 40
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Objects, half of them where boxes are before NMS, and the detections."""
    rng = np.random.default_rng(0)
    heads = RawHeads(predictor, paths, CLASSES)
    rows: list[tuple[int, int, Sequence[float]]] = []
    results = []
    for image_id, path in paths.items():
        results += predictor(path).to_coco(image_id)
        raw = heads(image_id, range(len(CLASSES)))
        height, width = SIZES[image_id - 1]
        for _ in range(number // 2):
            w, h = rng.uniform(6, 60, 2)
            box = [rng.uniform(0, width - w), rng.uniform(0, height - h), w, h]
            rows.append((image_id, int(rng.integers(3)), box))
            label, anchor = rng.integers(3), rng.integers(raw.probs.shape[1])
            box = raw.boxes[label, anchor].tolist()
            if min(box[2:]) > 2:
                rows.append((image_id, int(label), box))
    return annotations_of(rows), results


def annotations_of(rows: Sequence[tuple[int, int, Sequence[float]]]) -> dict[str, Any]:
    """A COCO json of (image id, class index, XYWH) in the pictures."""
    annotations = [
        {
            "id": i,
            "image_id": image_id,
            "category_id": label + 1,
            "bbox": box,
            "area": box[2] * box[3],
            "iscrowd": 0,
        }
        for i, (image_id, label, box) in enumerate(rows, start=1)
    ]
    images = [
        {"id": i, "height": h, "width": w, "file_name": ""}
        for i, (h, w) in enumerate(SIZES, start=1)
    ]
    categories = [{"id": i, "name": name} for i, name in enumerate(CLASSES, start=1)]
    return {"images": images, "annotations": annotations, "categories": categories}
