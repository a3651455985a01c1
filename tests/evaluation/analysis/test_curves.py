"""Curves, best thresholds and AP say what a count of the detections says."""

from __future__ import annotations

import math

import numpy as np
import pytest

from retinanet_ext.evaluation.analysis import assign
from retinanet_ext.evaluation.analysis.classes import class_rows
from retinanet_ext.evaluation.analysis.curves import (
    FALLBACK_THRESHOLD,
    average_precision,
    best_thresholds,
    class_curves,
    make_curve,
    pooled_curve,
)
from retinanet_ext.evaluation.scoring import score_boxes
from tests.helpers.coco_results import as_results, coco_of, many_detections, official, tables_of
from tests.helpers.coco_scenes import noisy_predictions, random_ground_truth


def scene(seed: int):
    rng = np.random.default_rng(seed)
    truth = random_ground_truth(rng, crowd=0.1)
    return truth, as_results(noisy_predictions(rng, truth, noise=0.1))


@pytest.mark.parametrize("seed", range(3))
def test_ap_of_each_class_and_iou_is_that_of_pycocotools(seed):
    truth, results = scene(seed) if seed else many_detections(0, 0.2, 0.1)
    truth["annotations"] = [x for x in truth["annotations"] if x["category_id"] != 8]
    theirs, tables = official(truth, results), tables_of(truth, results)
    for t, iou in enumerate(theirs.params.iouThrs):
        found = assign(tables, float(iou))
        rows = found.by_class
        ap = average_precision(tables.detections.label[rows], found.right[rows], tables.num_objects)
        expected = theirs.eval["precision"][t, :, :, 0, 0].mean(axis=0)
        assert math.isnan(ap[2]) and expected[2] == -1
        assert np.delete(ap, 2) == pytest.approx(np.delete(expected, 2), abs=1e-12)


def counted(found, k: int, threshold: float) -> tuple[float, float]:
    """Precision and recall of a class, by counting one by one."""
    right = wrong = 0
    for row, score in enumerate(found.tables.detections.score):
        if found.tables.detections.label[row] == k and score >= threshold:
            right, wrong = right + bool(found.right[row]), wrong + bool(found.wrong[row])
    return right / (right + wrong), right / int(found.tables.num_objects[k])


@pytest.mark.parametrize("seed", range(3))
def test_precision_and_recall_at_the_best_threshold_are_those_of_its_detections(seed):
    truth, results = scene(seed)  # half of the scores are tied
    found = assign(tables_of(truth, results))
    names = dict(zip(found.tables.category_ids, found.tables.names, strict=True))
    metrics, accuracy = score_boxes(coco_of(truth), results, names, 100)
    rows = class_rows(found, accuracy)
    for k, row in enumerate(rows):
        precision, recall = counted(found, k, row.threshold)
        assert (row.precision, row.recall) == pytest.approx((precision, recall), abs=1e-12)
        f1 = 2 * precision * recall / (precision + recall)
        assert row.f1 == pytest.approx(f1, abs=1e-12)
        scores = found.tables.detections.score[found.tables.detections.label == k]
        for other in scores.tolist():
            p, r = counted(found, k, other)
            other_f1 = 2 * p * r / (p + r) if p + r else 0
            assert other_f1 <= f1 + 1e-12
            assert other_f1 < f1 - 1e-12 or other <= row.threshold  # of equals the higher
        assert metrics[f"AP-{row.name}"] == pytest.approx(row.AP, abs=1e-9)
    assert np.mean([row.AP50 for row in rows]) == pytest.approx(metrics["AP50"], abs=1e-9)
    assert np.mean([row.AP75 for row in rows]) == pytest.approx(metrics["AP75"], abs=1e-9)


def test_detections_of_one_score_pass_a_threshold_together():
    curve = make_curve(np.array([0.9, 0.5, 0.5, 0.5]), np.array([0, 1, 0, 1], bool), 4)
    assert curve.score.tolist() == [0.9, 0.5]
    assert curve.at(0.5) == (0.5, 0.5, 0.5) and curve.at(0.51) == (0, 0, 0)
    assert curve.precision.tolist() == [0, 0.5] and curve.recall.tolist() == [0, 0.5]
    precision, recall, f1 = curve.at(0.95)
    assert math.isnan(precision) and (recall, f1) == (0, 0)


def test_a_class_of_which_nothing_is_found_gets_the_threshold_of_all_together():
    nothing = make_curve(np.array([0.8]), np.array([False]), 3)
    absent = make_curve(np.zeros(0), np.zeros(0, bool), 0)
    good = make_curve(np.array([0.7, 0.2]), np.array([True, False]), 1)
    pooled = make_curve(np.array([0.8, 0.7, 0.2]), np.array([False, True, False]), 4)
    assert best_thresholds([nothing, absent, good], pooled).tolist() == [0.7, 0.7, 0.7]
    assert best_thresholds([nothing], nothing).tolist() == [FALLBACK_THRESHOLD]
    assert math.isnan(absent.at(0.1)[1])


def test_the_pooled_curve_holds_every_detection_that_counts():
    truth, results = scene(1)
    found = assign(tables_of(truth, results))
    pooled, curves = pooled_curve(found), class_curves(found)
    assert pooled.right[-1] == sum(x.right[-1] for x in curves) == found.right.sum()
    assert pooled.wrong[-1] == sum(x.wrong[-1] for x in curves) == found.wrong.sum()
    assert (np.diff(pooled.score) < 0).all()


def test_few_objects_make_a_threshold_uncertain():
    truth, results = scene(0)
    few = [x for x in truth["annotations"] if x["category_id"] == 2 and not x["iscrowd"]][9:]
    gone = {x["id"] for x in few}
    truth["annotations"] = [x for x in truth["annotations"] if x["id"] not in gone]
    found = assign(tables_of(truth, results))
    names = dict(zip(found.tables.category_ids, found.tables.names, strict=True))
    rows = class_rows(found, score_boxes(coco_of(truth), results, names, 100)[1])
    assert (rows[0].num_objects, rows[0].uncertain) == (9, True)
    assert not any(row.uncertain for row in rows[1:])
