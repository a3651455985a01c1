"""Calibration compares scores with the share of detections that is right."""

from __future__ import annotations

import math

import numpy as np
import pytest

from retinanet_ext.evaluation.analysis import assign
from retinanet_ext.evaluation.analysis.calibration import calibrate, calibrate_classes
from tests.helpers.coco_results import many_detections, tables_of
from tests.helpers.coco_scenes import random_ground_truth


def detector(right_of_score, num_images: int = 4000):
    """One detection in each image, right with a probability that depends on its score."""
    rng = np.random.default_rng(0)
    truth = random_ground_truth(rng, num_images, num_objects=0, classes=("one",))
    results = []
    for i in range(1, num_images + 1):
        score = float(rng.uniform())
        box = [50, 50, 100, 100] if rng.random() < right_of_score(score) else [400, 400, 9, 9]
        row = {"id": i, "image_id": i, "category_id": 2, "bbox": [50, 50, 100, 100]}
        truth["annotations"].append({**row, "area": 10000, "iscrowd": 0})
        results.append({"image_id": i, "category_id": 2, "bbox": box, "score": score})
    return assign(tables_of(truth, results))


def test_scores_that_are_probabilities_have_no_error():
    calibration = calibrate(detector(lambda score: score))
    assert calibration.count.sum() == 4000 and calibration.count.min() > 300
    assert calibration.ece < 0.025 and calibration.mce < 0.08


def test_scores_that_are_too_low_show_by_how_much():
    calibration = calibrate(detector(lambda score: math.sqrt(score)))
    assert calibration.ece == pytest.approx(1 / 6, abs=0.02)  # the integral of sqrt(x) - x
    assert calibration.mce == pytest.approx(0.25, abs=0.05)  # its largest value
    assert (calibration.precision > calibration.score).all()


def test_bins_hold_what_a_loop_puts_there():
    truth, results = many_detections(0, 0.1, 0.1)
    results[0]["score"], results[1]["score"], results[2]["score"] = 1.0, 0.1, 0.3
    found = assign(tables_of(truth, results))
    bins: list[list[tuple[float, bool]]] = [[] for _ in range(10)]
    for row in np.flatnonzero(found.right | found.wrong):
        score = float(found.tables.detections.score[row])
        place = max(b for b in range(10) if score >= b / 10)
        bins[place].append((score, bool(found.right[row])))
    calibration = calibrate(found)
    assert calibration.count.tolist() == [len(x) for x in bins]
    gaps = [abs(np.mean([s - r for s, r in x])) if x else 0 for x in bins]
    total = sum(map(len, bins))
    expected = sum(len(x) * gap for x, gap in zip(bins, gaps, strict=True)) / total
    assert calibration.ece == pytest.approx(expected, abs=1e-12)
    assert calibration.mce == pytest.approx(max(gaps), abs=1e-12)
    of_classes = calibrate_classes(found)
    assert sum(x.count for x in of_classes).tolist() == calibration.count.tolist()


def test_without_detections_it_is_unknown():
    truth = random_ground_truth(np.random.default_rng(0))
    calibration = calibrate(assign(tables_of(truth, [])))
    assert math.isnan(calibration.ece) and math.isnan(calibration.mce)
