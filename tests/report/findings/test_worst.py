"""The worst pictures have the most mistakes; a sure box on nothing may be a label that lacks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from retinanet_ext.evaluation.analysis import assign
from retinanet_ext.evaluation.analysis.class_confusion import confuse_classes
from retinanet_ext.evaluation.analysis.error_split import split_errors
from retinanet_ext.report.findings import (
    explain_misses,
    possible_missing_labels,
    worst_pictures,
)
from tests.helpers.coco_results import many_detections, tables_of

CAT, DOG = 1, 2
BOXES = [[10.0 + 60 * i, 10.0, 40.0, 40.0] for i in range(5)]


def truth_of(objects: list[tuple[int, int, list[float]]], images: int, crowds=()) -> dict[str, Any]:
    """A COCO json of (image id, category id, XYWH)."""
    return {
        "images": [{"id": i, "width": 400, "height": 400} for i in range(1, images + 1)],
        "annotations": [
            {
                "id": i,
                "image_id": image,
                "category_id": category,
                "bbox": box,
                "area": box[2] * box[3],
                "iscrowd": int(i in crowds),
            }
            for i, (image, category, box) in enumerate(objects, start=1)
        ],
        "categories": [{"id": CAT, "name": "cat"}, {"id": DOG, "name": "dog"}],
    }


def result(image: int, category: int, box: list[float], score: float) -> dict[str, Any]:
    return {"image_id": image, "category_id": category, "bbox": box, "score": score}


def test_pictures_come_by_their_mistakes_and_those_without_stay_out():
    objects = [(1, CAT, BOXES[0]), (2, CAT, BOXES[0]), (2, DOG, BOXES[1]), (4, CAT, BOXES[0])]
    found = assign(
        tables_of(
            truth_of(objects, 4),
            [
                result(1, CAT, BOXES[0], 0.9),  # right
                result(2, DOG, BOXES[1], 0.9),  # right; the cat is missed
                result(3, CAT, BOXES[2], 0.8),  # false
                result(3, DOG, BOXES[3], 0.7),  # false
                result(3, DOG, BOXES[4], 0.4),  # below the threshold
                result(4, CAT, BOXES[0], 0.4),  # below the threshold: missed
            ],
        )
    )
    worst = worst_pictures(found, 0.5)
    assert [(x.image_id, x.num_false, x.num_missed, x.cost) for x in worst] == [
        (3, 2, 0, 2),
        (2, 0, 1, 1),
        (4, 0, 1, 1),
    ]
    boxes = [(x.kind, x.name, x.box, x.score, x.why) for x in worst[1].boxes]
    assert boxes == [
        ("FN", "cat", tuple(BOXES[0]), None, ""),
        ("TP", "dog", tuple(BOXES[1]), 0.9, ""),
    ]
    assert [(x.kind, x.score) for x in worst[0].boxes] == [("FP", 0.8), ("FP", 0.7)]
    assert [x.image_id for x in worst_pictures(found, 0.5, most=1)] == [3]
    # With a threshold of its own for each class.
    assert [x.image_id for x in worst_pictures(found, [0.3, 0.75])] == [2, 3]


def test_of_equally_many_mistakes_those_that_cost_more_come_first():
    objects = [(3, CAT, BOXES[0]), *[(4, CAT, box) for box in BOXES]]
    loose = [10.0, 10.0, 40.0, 90.0]  # IoU 0.44
    results = [
        *[result(4, CAT, box, 0.9) for box in BOXES],
        result(3, CAT, loose, 0.8),  # a repair gains; and the object is missed
        result(2, CAT, BOXES[1], 0.2),  # two on background, after all that are right
        result(2, CAT, BOXES[3], 0.2),
    ]
    found = assign(tables_of(truth_of(objects, 4), results))
    errors = split_errors(found)
    assert errors.gain["Loc"] > errors.gain["Bkg"]
    assert [x.image_id for x in worst_pictures(found, 0.1)] == [2, 3]  # the order of ids
    assert [x.image_id for x in worst_pictures(found, 0.1, errors)] == [3, 2]


def test_mistakes_say_what_they_are():
    loose = [10.0, 10.0, 40.0, 90.0]
    objects = [(1, CAT, BOXES[0])]
    found = assign(tables_of(truth_of(objects, 1), [result(1, CAT, loose, 0.9)]))
    misses = explain_misses(found, 0.5)
    (picture,) = worst_pictures(found, 0.5, split_errors(found), misses)
    assert [(x.kind, x.why) for x in picture.boxes] == [("FN", "loose"), ("FP", "Loc")]


@pytest.mark.parametrize("threshold", [0.2, 0.6])
def test_all_pictures_together_have_the_mistakes_of_the_confusion(threshold):
    truth, results = many_detections(3, 0.15, 0.1)
    found = assign(tables_of(truth, results))
    worst = worst_pictures(found, threshold, split_errors(found), most=1000)
    matrix = confuse_classes(found, threshold).matrix()
    right = np.diag(matrix)[:-1].sum()
    assert sum(x.num_missed for x in worst) == matrix[:-1].sum() - right
    assert sum(x.num_false for x in worst) == matrix[:, :-1].sum() - right
    costs = [x.cost for x in worst]
    assert costs == sorted(costs, reverse=True) and costs[-1] > 0
    for picture in worst:
        kinds = [x.kind for x in picture.boxes]
        assert kinds.count("FN") == picture.num_missed
        assert kinds.count("FP") == picture.num_false
        assert all(x.why for x in picture.boxes if x.kind == "FP")


def test_possible_labels_are_sure_and_on_nothing():
    objects = [(1, CAT, BOXES[0]), (1, CAT, [150.0, 150.0, 200.0, 200.0])]
    touching = [46.0, 10.0, 40.0, 40.0]  # IoU 0.053 with the first
    overlapping = [40.0, 10.0, 40.0, 40.0]  # IoU 0.14
    results = [
        result(1, CAT, BOXES[0], 0.99),  # right
        result(2, CAT, BOXES[0], 0.95),
        result(2, DOG, BOXES[1], 0.7),  # not above
        result(1, DOG, touching, 0.9),
        result(1, DOG, overlapping, 0.9),
        result(1, DOG, [160.0, 160.0, 180.0, 180.0], 0.9),  # in a crowd of another class
    ]
    found = assign(tables_of(truth_of(objects, 2, crowds=[2]), results))
    labels = possible_missing_labels(found, 0.5)
    assert [(x.image_id, x.name, x.box, x.score) for x in labels] == [
        (2, "cat", tuple(BOXES[0]), 0.95),
        (1, "dog", tuple(touching), 0.9),
    ]
    assert [x.name for x in possible_missing_labels(found, [0.96, 0.5])] == ["dog"]
    assert len(possible_missing_labels(found, 0.5, most=1)) == 1
    assert possible_missing_labels(found, 0.95) == []  # only above the threshold


def test_nothing_is_nothing():
    found = assign(tables_of(truth_of([], 0), []))
    assert worst_pictures(found, 0.5) == [] == possible_missing_labels(found, 0.5)
