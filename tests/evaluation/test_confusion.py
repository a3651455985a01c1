"""Boxes that are right under a wrong class are counted, and told where that is what is wrong."""

from __future__ import annotations

import contextlib
import io
import logging

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from retinanet_ext.evaluation.confusion import Naming, count_names, describe_confusion
from tests.helpers.coco_scenes import (
    CLASSES,
    exact_predictions,
    noisy_predictions,
    random_ground_truth,
    score,
)


def coco_of(boxes: list[tuple[list[float], int]]) -> COCO:
    """Ground truth of one image with id 1: boxes XYWH and category ids."""
    coco = COCO()
    coco.dataset = {
        "images": [{"id": 1}],
        "categories": [{"id": i} for i in (1, 2, 3)],
        "annotations": [
            {"id": i, "image_id": 1, "bbox": box, "category_id": k, "area": 1, "iscrowd": 0}
            for i, (box, k) in enumerate(boxes, start=1)
        ],
    }
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
    return coco


def found(box: list[float], category: int, sure: float) -> dict:
    return {"image_id": 1, "category_id": category, "bbox": box, "score": sure}


def test_each_object_is_named_by_its_surest_detection():
    a, b = [0, 0, 10, 10], [50, 50, 10, 10]
    coco = coco_of([(a, 1), (b, 2)])
    detections = [
        found(a, 1, 0.3),
        found(a, 2, 0.6),
        found(b, 2, 0.5),
        found([90, 0, 5, 5], 3, 0.9),
    ]
    naming = count_names(coco, detections, [1], 100)
    assert naming == Naming(2, 2, {(1, 2): 1})
    assert count_names(coco, detections, [1], 1) == Naming(2, 0, {})  # the surest is elsewhere
    assert count_names(coco, [], [1], 100) == Naming(2, 0, {})


def test_a_box_that_is_not_right_names_nothing():
    coco = coco_of([([0, 0, 10, 10], 1)])
    assert count_names(coco, [found([0, 0, 10, 4], 2, 0.9)], [1], 100).boxed == 0


def test_two_detections_of_one_object_are_not_given_to_its_neighbour():
    a, near = [0, 0, 10, 10], [0, 2, 10, 10]
    coco = coco_of([(a, 1), (near, 2)])
    naming = count_names(coco, [found(a, 1, 0.9), found(near, 2, 0.8)], [1], 100)
    assert naming == Naming(2, 2, {})


@pytest.mark.parametrize(
    "naming, ap50_any, ap50, told",
    [
        (Naming(20, 19, {(1, 2): 9, (2, 1): 1}), 90, 40, True),
        (Naming(20, 19, {(1, 2): 9}), 45, 20, False),  # the boxes are not right either
        (Naming(20, 19, {(1, 2): 1}), 90, 75, False),  # hardly any is confused
        (Naming(20, 19, {(1, 2): 9}), 90, 85, False),  # but with lower scores than the right ones
    ],
)
def test_confusion_is_told_only_where_it_is_what_is_wrong(naming, ap50_any, ap50, told):
    line = describe_confusion(naming, {1: "jack", 2: "king"}, ap50_any, ap50)
    assert bool(line) == told
    if told:
        assert line.startswith("boxes right, classes confused: 19 of 20 objects are boxed, 9 of")
        assert line.endswith("jack taken for king 9 times, king taken for jack 1 time")


@pytest.mark.parametrize("use_fast_impl", [True, False])
def test_ap_whatever_the_class_is_pycocotools(register, use_fast_impl):
    rng = np.random.default_rng(3)
    truth = random_ground_truth(rng)
    predictions = noisy_predictions(rng, truth, noise=0.08)
    metrics = score(register(truth), predictions, use_fast_impl=use_fast_impl)
    coco = COCO()
    coco.dataset = truth
    results = [
        {
            "image_id": i,
            "category_id": 2,
            "bbox": [x0, y0, x1 - x0, y1 - y0],
            "score": np.float32(s),
        }
        for i, boxes in predictions.items()
        for (x0, y0, x1, y1), s, _ in boxes
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(results), "bbox")
        evaluation.params.useCats = 0
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    theirs = evaluation.stats[:2] * 100
    assert [metrics["APany"], metrics["AP50any"]] == pytest.approx(theirs.tolist(), abs=0.05)
    assert metrics["APany"] > metrics["AP"]  # one in ten is given a random class


def test_of_one_class_it_is_ap(register):
    truth = random_ground_truth(np.random.default_rng(0), classes=("cell",), crowd=0)
    metrics = score(register(truth), exact_predictions(truth))
    assert (metrics["APany"], metrics["AP50any"]) == (metrics["AP"], metrics["AP50"])


def test_the_table_and_the_line_say_that_classes_are_confused(register, caplog):
    truth = random_ground_truth(np.random.default_rng(0), crowd=0)
    right = exact_predictions(truth)
    wrong = {i: [(box, s, 3 - k) for box, s, k in boxes] for i, boxes in right.items()}
    with caplog.at_level(logging.INFO, logger="retinanet_ext"):
        metrics = score(register(truth), wrong)
    assert metrics["AP"] < 5 and metrics["APany"] == pytest.approx(100)
    assert "AP 100.00, AP50 100.00" in caplog.text
    assert "classes confused" in caplog.text and f"{CLASSES[0]} taken for star" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.INFO, logger="retinanet_ext"):
        score(register(truth), right)
    assert "confused" not in caplog.text
