"""Weighted boxes fusion gives the numbers of its authors' package, in double precision."""

from __future__ import annotations

import numpy as np
import pytest

from retinanet_ext.errors import InputError
from retinanet_ext.inference.pooled.fusion import SCORE_RULES, fuse_boxes

# The example in the README of ensemble-boxes: two models with weights 2 and 1, IoU 0.5.
BOXES = np.array(
    [
        [0.00, 0.51, 0.81, 0.91],
        [0.10, 0.31, 0.71, 0.61],
        [0.01, 0.32, 0.83, 0.93],
        [0.02, 0.53, 0.11, 0.94],
        [0.03, 0.24, 0.12, 0.35],
        [0.04, 0.56, 0.84, 0.92],
        [0.12, 0.33, 0.72, 0.64],
        [0.38, 0.66, 0.79, 0.95],
        [0.08, 0.49, 0.21, 0.89],
    ]
)
SCORES = np.array([0.9, 0.8, 0.2, 0.4, 0.7, 0.5, 0.8, 0.7, 0.3])
CLASSES = np.array([0, 1, 0, 1, 1, 1, 1, 1, 0])
SOURCES = np.array([0, 0, 0, 0, 0, 1, 1, 1, 1])
# What ensemble-boxes 1.0.9 gives for it.
EXPECTED = {
    "avg": [0.8, 0.733333, 0.466667, 0.266667, 0.233333, 0.166667, 0.1],
    "max": [0.9, 0.8, 0.7, 0.4, 0.35, 0.25, 0.15],
    "box_and_model_avg": [0.8, 0.466667, 0.366667, 0.266667, 0.233333, 0.166667, 0.1],
    "absent_model_aware_avg": [0.8, 0.466667, 0.44, 0.266667, 0.233333, 0.166667, 0.1],
}
FIRST_BOXES = [[0.10667, 0.31667, 0.71333, 0.62], [0.00182, 0.47545, 0.81364, 0.91364]]


@pytest.mark.parametrize("rule", SCORE_RULES)
def test_the_authors_example(rule):
    boxes, scores, classes = fuse_boxes(
        BOXES, SCORES, CLASSES, SOURCES, [2, 1], iou_thresh=0.5, score_rule=rule
    )
    np.testing.assert_allclose(scores, EXPECTED[rule], atol=1e-6)
    assert sorted(classes) == [0, 0, 1, 1, 1, 1, 1]
    if rule == "avg":
        np.testing.assert_allclose(boxes[:2], FIRST_BOXES, atol=1e-5)
        assert classes.tolist() == [1, 0, 1, 1, 1, 1, 0]


def test_the_unit_of_boxes_does_not_matter():
    expected = fuse_boxes(BOXES, SCORES, CLASSES, SOURCES, [1, 1])
    boxes, scores, classes = fuse_boxes(BOXES * 4096, SCORES, CLASSES, SOURCES, [1, 1])
    np.testing.assert_allclose(boxes, expected[0] * 4096, rtol=1e-12)
    np.testing.assert_array_equal(scores, expected[1])
    np.testing.assert_array_equal(classes, expected[2])


def test_boxes_far_apart_and_of_all_sizes_find_each_other():
    rng = np.random.default_rng(0)
    low = rng.uniform(-500, 5000, (60, 2))
    sides = 10.0 ** rng.uniform(0, 3.5, (60, 2))
    objects = np.concatenate([low, low + sides], axis=1)
    shifted = objects + 0.01 * np.tile(sides, 2)
    boxes, _, classes = fuse_boxes(
        np.concatenate([objects, shifted]),
        np.full(120, 0.5),
        np.tile(np.arange(60), 2),
        np.repeat([0, 1], 60),
        [1, 1],
    )
    assert sorted(classes) == list(range(60))
    expected = objects + 0.005 * np.tile(sides, 2)
    np.testing.assert_allclose(boxes[np.argsort(classes)], expected)


def test_scores_stay_in_0_to_1_and_a_box_of_one_view_in_two_counts_half():
    box = [[0, 0, 10, 10]]
    for count in (1, 2, 5):
        _, scores, _ = fuse_boxes(
            box * count, [0.8] * count, [0] * count, [0, 1, 0, 1, 0][:count], [1, 1]
        )
        assert scores == pytest.approx([0.4 if count == 1 else 0.8])


def test_equal_scores_are_taken_in_their_order():
    boxes = [[0, 0, 10, 10], [4, 0, 14, 10], [8, 0, 18, 10]]
    found = fuse_boxes(boxes, [0.5] * 3, [0] * 3, [0, 1, 0], [1, 1], iou_thresh=0.4)[0]
    np.testing.assert_array_equal(found, [[2, 0, 12, 10], [8, 0, 18, 10]])


def test_nothing_gives_nothing_and_boxes_without_score_or_area_are_no_trouble():
    assert [len(x) for x in fuse_boxes(np.zeros((0, 4)), [], [], [], [1])] == [0, 0, 0]
    boxes, scores, _ = fuse_boxes([[1, 1, 1, 1], [1, 1, 1, 1]], [0, 0], [0, 0], [0, 0], [1])
    assert boxes.tolist() == [[1, 1, 1, 1]] * 2 and scores.tolist() == [0, 0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scores": [0.5]}, "one of each per box"),
        ({"scores": [0.5, 1.5]}, "scores must be in"),
        ({"scores": [0.5, np.nan]}, "scores must be in"),
        ({"boxes": [[0, 0, 1, 1], [2, 0, 1, 1]]}, "x1 <= x2"),
        ({"boxes": [[0, 0, 1, 1], [0, 0, np.inf, 1]]}, "finite"),
        ({"sources": [0, 2]}, "number of weights"),
        ({"weights": []}, "positive one for each"),
        ({"weights": [1, 0]}, "positive one for each"),
        ({"iou_thresh": 2}, r"iou_thresh is 2"),
        ({"score_rule": "mean"}, "score_rule is 'mean'; use one of avg"),
    ],
)
def test_what_cannot_be_fused_is_an_error(changes, message):
    arguments = {
        "boxes": [[0, 0, 1, 1], [0, 0, 1, 1]],
        "scores": [0.5, 0.6],
        "classes": [0, 0],
        "sources": [0, 1],
        "weights": [1, 1],
    }
    with pytest.raises(InputError, match=message):
        fuse_boxes(**{**arguments, **changes})
