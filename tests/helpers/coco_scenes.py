"""Random COCO ground truth and imperfect predictions of it, for the tests of evaluation."""

from __future__ import annotations

import json
import math
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.data.datasets import register_coco_instances
from detectron2.evaluation import COCOEvaluator
from detectron2.structures import Boxes, Instances

from retinanet_ext.evaluation import COCODetectionEvaluator

CLASSES = ("disc", "bar", "ring", "star")
OVERALL = ["AP", "AP50", "AP75", "APs", "APm", "APl"]
OVERALL += ["AR1", "AR10", "AR100", "ARs", "ARm", "ARl", "APany", "AP50any"]
SIZE = 640  # of the square images, in pixels

Predictions = dict[int, list[tuple[list[float], float, int]]]  # image id: (XYXY, score, class)


def random_ground_truth(
    rng: np.random.Generator,
    num_images: int = 40,
    num_objects: int = 300,
    classes: tuple[str, ...] = CLASSES,
    crowd: float = 0.05,
) -> dict[str, Any]:
    """A COCO json: class ids with gaps, all sizes, some crowds, some images left empty."""
    annotations = []
    for i in range(num_objects):
        w, h = np.exp(rng.uniform(np.log(8), np.log(250), 2))
        x, y = rng.uniform(0, SIZE - w), rng.uniform(0, SIZE - h)
        annotations.append(
            {
                "id": i + 1,
                "image_id": int(rng.integers(1, max(2, num_images - 2))),
                "category_id": 3 * int(rng.integers(len(classes))) + 2,
                "bbox": [round(float(v), 2) for v in (x, y, w, h)],
                "area": round(float(w * h), 2),
                "iscrowd": int(rng.random() < crowd),
            }
        )
    return {
        "images": [
            {"id": i, "width": SIZE, "height": SIZE, "file_name": f"{i}.png"}
            for i in range(1, num_images + 1)
        ],
        "annotations": annotations,
        "categories": [{"id": 3 * k + 2, "name": name} for k, name in enumerate(classes)],
    }


def noisy_predictions(rng: np.random.Generator, truth: dict[str, Any], noise: float) -> Predictions:
    """Jittered, missed, doubled and confused objects, and false ones; many scores are tied."""
    ids = sorted(c["id"] for c in truth["categories"])
    predictions: Predictions = {image["id"]: [] for image in truth["images"]}
    for ann in truth["annotations"]:
        x, y, w, h = ann["bbox"]
        for _ in range(int(rng.choice([0, 1, 1, 1, 2]))):
            dx, dy, dw, dh = rng.normal(0, noise, 4)
            left, top = x + dx * w, y + dy * h
            box = [left, top, left + w * math.exp(dw), top + h * math.exp(dh)]
            k = ids.index(ann["category_id"]) if rng.random() < 0.9 else int(rng.integers(len(ids)))
            predictions[ann["image_id"]].append((box, _score(rng), k))
    for found in predictions.values():
        for _ in range(int(rng.integers(4))):
            left, top, w, h = rng.uniform(0, 200, 4)
            box = [left, top, left + w + 1, top + h + 1]
            found.append((box, _score(rng) / 2, int(rng.integers(len(ids)))))
    return predictions


def _score(rng: np.random.Generator) -> float:
    return round(float(rng.uniform(0.05, 1)), 1 if rng.random() < 0.5 else 6)


def exact_predictions(truth: dict[str, Any]) -> Predictions:
    ids = sorted(c["id"] for c in truth["categories"])
    predictions: Predictions = {image["id"]: [] for image in truth["images"]}
    for ann in truth["annotations"]:
        x, y, w, h = ann["bbox"]
        found = predictions[ann["image_id"]]
        # Scores fall along an image, so that a limit on detections keeps the first objects.
        score = 0.9 - 1e-4 * len(found)
        found.append(([x, y, x + w, y + h], score, ids.index(ann["category_id"])))
    return predictions


def feed(evaluator: COCOEvaluator, predictions: Predictions) -> None:
    for image_id, found in predictions.items():
        instances = Instances((SIZE, SIZE))
        boxes = torch.tensor([box for box, _, _ in found], dtype=torch.float32)
        instances.pred_boxes = Boxes(boxes.reshape(-1, 4))
        instances.scores = torch.tensor([score for _, score, _ in found], dtype=torch.float32)
        instances.pred_classes = torch.tensor([k for _, _, k in found], dtype=torch.int64)
        evaluator.process([{"image_id": image_id}], [{"instances": instances}])


def score(name: str, predictions: Predictions, **kwargs: Any) -> dict[str, float]:
    evaluator = COCODetectionEvaluator(name, distributed=False, **kwargs)
    evaluator.reset()
    feed(evaluator, predictions)
    return evaluator.evaluate()["bbox"]


def register_json(folder: Path, truth: dict[str, Any]) -> str:
    name = f"test_coco_{uuid.uuid4().hex}"
    json_file = folder / f"gt_{name}.json"
    json_file.write_text(json.dumps(truth))
    register_coco_instances(name, {}, str(json_file), str(folder))
    return name
