"""Recall by size and aspect ratio counts each object once, where it belongs."""

from __future__ import annotations

import numpy as np

from retinanet_ext.evaluation.analysis import assign
from retinanet_ext.evaluation.analysis.recall_by_shape import recall_by_shape
from tests.helpers.coco_results import many_detections, tables_of
from tests.helpers.coco_scenes import random_ground_truth


def test_every_object_is_in_one_cell_and_found_as_assigned():
    truth, results = many_detections(0, 0.2, 0.1)
    found = assign(tables_of(truth, results))
    grid = recall_by_shape(found)
    assert grid.count.sum() == found.tables.num_objects.sum()
    assert grid.found.sum() == found.right.sum()
    assert grid.count.shape == (len(grid.sizes) - 1, len(grid.ratios))
    above = recall_by_shape(found, 0.6)
    shown = found.right & (found.tables.detections.score >= 0.6)
    assert above.found.sum() == shown.sum() < grid.found.sum()


def test_cells_are_octaves_of_size_and_ratio():
    truth = random_ground_truth(np.random.default_rng(0), num_images=1, num_objects=0)
    boxes = [[0, 0, 32, 32], [100, 100, 16, 64], [300, 0, 100, 1], [0, 300, 0, 5]]
    truth["annotations"] = [
        {"id": i, "image_id": 1, "category_id": 2, "bbox": box, "area": 1, "iscrowd": 0}
        for i, box in enumerate(boxes, start=1)
    ]
    results = [{"image_id": 1, "category_id": 2, "bbox": boxes[1], "score": 0.5}]
    found = assign(tables_of(truth, results))
    grid = recall_by_shape(found)
    assert grid.sizes.tolist() == [8, 16, 32, 64]
    cells = {(8, 0.125): 1, (32, 1): 1, (32, 4): 1}
    for i, size in enumerate(grid.sizes[:-1]):
        for j, ratio in enumerate(grid.ratios):
            assert grid.count[i, j] == cells.get((size, ratio), 0)
    assert grid.found.sum() == 1 and grid.recall[2, list(grid.ratios).index(4)] == 1
    twice = recall_by_shape(found, scales=np.array([2.0]))
    assert twice.sizes.tolist() == [16, 32, 64, 128]
    assert twice.count.tolist() == grid.count.tolist()


def test_without_objects_there_are_no_cells():
    truth = random_ground_truth(np.random.default_rng(0), num_objects=0)
    assert recall_by_shape(assign(tables_of(truth, []))).count.sum() == 0
