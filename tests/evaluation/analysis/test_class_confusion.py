"""The confusion matrix agrees with recall and with the number of detections, at any threshold."""

from __future__ import annotations

import numpy as np
import pytest

from retinanet_ext.evaluation.analysis import assign
from retinanet_ext.evaluation.analysis.class_confusion import confuse_classes
from retinanet_ext.evaluation.analysis.curves import class_curves
from tests.helpers.coco_results import as_results, many_detections, tables_of
from tests.helpers.coco_scenes import exact_predictions, random_ground_truth


@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.77, [0.1, 0.5, 0.9, 0.3], 1.0])
@pytest.mark.parametrize("seed", range(3))
def test_rows_are_objects_columns_are_detections_and_the_diagonal_is_recall(seed, threshold):
    truth, results = many_detections(seed, 0.15, 0.1)
    found = assign(tables_of(truth, results))
    matrix = confuse_classes(found, threshold).matrix()
    limits = np.broadcast_to(threshold, 4)
    assert matrix[:-1].sum(axis=1).tolist() == found.tables.num_objects.tolist()
    for k, curve in enumerate(class_curves(found)):
        recall = curve.at(limits[k])[1]
        assert matrix[k, k] == pytest.approx(recall * curve.num_objects)
    shown = found.tables.detections.score >= limits[found.tables.detections.label]
    label = found.tables.detections.label
    counted = np.bincount(label[shown & (found.right | found.wrong)], minlength=4)
    assert matrix[:, :-1].sum(axis=0).tolist() == counted.tolist()
    if threshold == 0.0:
        assert found.ignored.any()
        off = matrix[:-1, :-1] - np.diag(np.diag(matrix[:-1, :-1]))
        assert off.sum() > 0 and matrix[-1, -1] == 0


def test_a_detector_that_calls_one_class_another_shows_in_that_cell_only():
    truth = random_ground_truth(np.random.default_rng(0), crowd=0)
    results = as_results(exact_predictions(truth))
    for row in results:
        row["category_id"] = 11 if row["category_id"] == 5 else row["category_id"]
    found = assign(tables_of(truth, results))
    confusion = confuse_classes(found, 0.5)
    matrix, n = confusion.matrix(), found.tables.num_objects
    expected = np.diag([n[0], 0, n[2], n[3], 0])
    expected[1, 3] = n[1]  # row: what it is, "bar"; column: what it is called, "star"
    assert matrix.tolist() == expected.tolist()
    assert confusion.most_confused() == [("bar", "star", n[1])]


def test_a_true_positive_is_never_taken_by_another_class():
    truth = random_ground_truth(np.random.default_rng(0), num_images=1, num_objects=0)
    box = [10, 10, 50, 50]
    row = {"id": 1, "image_id": 1, "category_id": 2, "bbox": box, "area": 2500, "iscrowd": 0}
    truth["annotations"] = [row]
    results = [
        {"image_id": 1, "category_id": 2, "bbox": box, "score": 0.5},
        {"image_id": 1, "category_id": 5, "bbox": box, "score": 0.9},
    ]
    found = assign(tables_of(truth, results))
    matrix = confuse_classes(found, 0.0).matrix()
    assert matrix[0, 0] == 1 and matrix[4, 1] == 1 and matrix.sum() == 2
    above = confuse_classes(found, 0.6).matrix()  # only the wrong one is left
    assert above[0, 1] == 1 and above.sum() == 1


def test_what_matches_a_crowd_is_not_counted():
    truth = random_ground_truth(np.random.default_rng(0), num_images=1, num_objects=0)
    row = {"id": 1, "image_id": 1, "category_id": 2, "bbox": [0, 0, 200, 200], "area": 40000}
    truth["annotations"] = [{**row, "iscrowd": 1}]
    results = [{"image_id": 1, "category_id": 2, "bbox": [9, 9, 50, 50], "score": 0.5}]
    assert confuse_classes(assign(tables_of(truth, results)), 0.0).matrix().sum() == 0
