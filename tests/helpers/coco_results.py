"""COCO results and tables of the scenes in `coco_scenes`, for the tests of analyses."""

from __future__ import annotations

import contextlib
import copy
import io
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from retinanet_ext.evaluation.analysis import Tables, make_tables

from .coco_scenes import Predictions, noisy_predictions, random_ground_truth

__all__ = ["as_results", "coco_of", "many_detections", "official", "tables_of"]


def coco_of(truth: dict[str, Any]) -> COCO:
    coco = COCO()
    coco.dataset = copy.deepcopy(truth)
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
    return coco


def as_results(predictions: Predictions) -> list[dict[str, Any]]:
    """As a file of COCO results has them, with the category ids of the scenes."""
    return [
        {
            "image_id": image,
            "category_id": 3 * k + 2,
            "bbox": [x0, y0, x1 - x0, y1 - y0],
            "score": score,
        }
        for image, found in predictions.items()
        for (x0, y0, x1, y1), score, k in found
    ]


def many_detections(
    seed: int, noise: float, crowd: float
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Ground truth and about two detections per object, whose scores all differ."""
    rng = np.random.default_rng(seed)
    truth = random_ground_truth(rng, num_images=30, num_objects=500, crowd=crowd)
    results = []
    for _ in range(2):
        for row in as_results(noisy_predictions(rng, truth, noise)):
            results.append({**row, "score": float(rng.uniform(0.05, 1))})
    return truth, results


def tables_of(truth: dict[str, Any], results: list[dict[str, Any]]) -> Tables:
    names = {row["id"]: row["name"] for row in truth["categories"]}
    return make_tables(coco_of(truth), results, list(names), list(names.values()))


def official(truth: dict[str, Any], results: list[dict[str, Any]], max_dets: int = 100) -> COCOeval:
    """pycocotools' evaluation, accumulated; detection number i has id i + 1."""
    coco = coco_of(truth)
    with contextlib.redirect_stdout(io.StringIO()):
        detections = coco.loadRes(copy.deepcopy(results))
        evaluation = COCOeval(coco, detections, "bbox")
        evaluation.params.maxDets = [max_dets]
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation
