"""The OUTPUT_DIR of a training that was evaluated on a test set with pictures."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import yaml
from PIL import Image

from retinanet_ext.inference import Predictor

from .coco_file import coco_file
from .run_folder import write_run
from .tiny import CLASSES

__all__ = ["write_evaluated_run"]

SIDE = 80  # of the pictures, in pixels
NUM_PICTURES, NUM_OBJECTS = 4, 5  # objects of each picture


def write_evaluated_run(folder: Path, run: Path) -> Path:
    """Write a tiny run, and the detections that its model has on a test set.

    Args:
        folder: gets ``val.json`` and ``images/``, the test set "cells_val".
        run: OUTPUT_DIR; also what is returned.
    """
    rng = np.random.default_rng(0)
    images = {f"{i}.png": (SIDE, SIDE) for i in range(1, NUM_PICTURES + 1)}
    boxes = []
    for i in range(NUM_PICTURES * NUM_OBJECTS):
        width, height = rng.uniform(4, 40, 2)
        x, y = rng.uniform(0, SIDE - width), rng.uniform(0, SIDE - height)
        box = [round(float(value), 2) for value in (x, y, width, height)]
        image_id, category_id = i // NUM_OBJECTS + 1, 1 + i % len(CLASSES)
        boxes.append({"image_id": image_id, "category_id": category_id, "bbox": box})
    truth = coco_file(folder / "val.json", images, boxes, dict(enumerate(CLASSES, 1)))
    (folder / "images").mkdir()
    for name in images:
        pixels = rng.integers(0, 256, (SIDE, SIDE, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(folder / "images" / name)
    write_run(run)
    config = yaml.safe_load((run / "config.yaml").read_text())
    entry = {"NAME": "cells_val", "ANNOTATIONS": str(truth), "IMAGES": str(folder / "images")}
    config["DATASETS"] |= {"EXTRA": [entry], "TEST": ["cells_val"]}
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    predictor = Predictor.from_run(run)
    rows = []
    for image_id, name in enumerate(images, 1):
        found = predictor(str(folder / "images" / name))
        for box, score, k in zip(found.boxes, found.scores, found.classes, strict=True):
            x0, y0, x1, y1 = np.asarray(box, float).tolist()
            row = {"bbox": [x0, y0, x1 - x0, y1 - y0], "score": float(score)}
            rows.append({"image_id": image_id, "category_id": int(k) + 1, **row})
    (run / "inference").mkdir()
    (run / "inference" / "coco_instances_results.json").write_text(json.dumps(rows))
    return run
