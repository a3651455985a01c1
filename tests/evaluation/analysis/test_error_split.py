"""The split of errors is that of tidecv."""

from __future__ import annotations

import numpy as np
import pytest

from retinanet_ext.evaluation.analysis import assign
from retinanet_ext.evaluation.analysis.error_split import KINDS, split_errors
from tests.helpers.coco_results import as_results, many_detections, tables_of
from tests.helpers.coco_scenes import exact_predictions, random_ground_truth

# By tidecv 1.0.1, TIDE().evaluate of the same boxes with max_dets 1000, crowds as ignore regions.
NAMES = ("AP", "Cls", "Loc", "Both", "Dupe", "Bkg", "Miss", "FP", "FN")
OF_TIDECV = {
    (0, 0.05, 0.0): (
        *(65.08395, 5.664018, 1.059654, 1.589675, 14.064644, 2.560048, 3.041994),
        *(27.985357, 4.686071),
    ),
    (1, 0.15, 0.05): (
        *(46.997089, 3.278988, 18.627122, 1.756065, 5.171201, 3.928143, 2.585794),
        *(37.161327, 8.64769),
    ),
    (2, 0.3, 0.2): (
        *(7.807582, 0.818088, 47.355699, 0.416556, 0.136546, 2.228838, 0.759524),
        *(31.053804, 12.253363),
    ),
}


@pytest.mark.parametrize("seed, noise, crowd", OF_TIDECV)
def test_what_each_kind_of_error_costs_is_what_tidecv_says(seed, noise, crowd):
    truth, results = many_detections(seed, noise, crowd)
    errors = split_errors(assign(tables_of(truth, results), max_dets=1000))
    ours = {"AP": errors.ap, **errors.gain}
    expected = dict(zip(NAMES, OF_TIDECV[seed, noise, crowd], strict=True))
    assert ours == pytest.approx(expected, abs=0.03)


def test_each_wrong_detection_is_of_one_kind_and_nothing_else_is():
    truth, results = many_detections(1, 0.2, 0.1)
    found = assign(tables_of(truth, results))
    errors = split_errors(found)
    assert ((errors.kind >= 0) == found.wrong).all() and found.ignored.any()
    assert sum(errors.count[name] for name in KINDS[:-1]) == found.wrong.sum()
    assert errors.count["Miss"] <= found.missed.sum()


def test_one_detection_of_each_kind_is_named_as_it_is():
    truth = random_ground_truth(np.random.default_rng(0), num_images=1, num_objects=0)
    for i, (category, box) in enumerate([(2, [0, 0, 100, 100]), (5, [300, 300, 100, 100])]):
        row = {"id": i + 1, "image_id": 1, "category_id": category, "bbox": box}
        truth["annotations"].append({**row, "area": 10000, "iscrowd": 0})

    def detected(category: int, box: list[float], score: float) -> dict:
        return {"image_id": 1, "category_id": category, "bbox": box, "score": score}

    results = [
        detected(2, [0, 0, 100, 100], 0.9),
        detected(2, [0, 0, 100, 90], 0.8),  # the same object again
        detected(2, [0, 0, 100, 30], 0.7),
        detected(2, [300, 300, 100, 100], 0.6),
        detected(2, [300, 300, 100, 30], 0.5),
        detected(2, [500, 500, 50, 50], 0.4),
    ]
    errors = split_errors(assign(tables_of(truth, results)))
    assert [KINDS[i] for i in errors.kind[1:]] == ["Dupe", "Loc", "Cls", "Both", "Bkg"]
    assert errors.count["Miss"] == 0  # the detection of the wrong class would find it
    assert errors.gain["Cls"] > 40


@pytest.mark.parametrize("num_objects, num_images", [(300, 40), (249, 2)])
def test_ground_truth_as_detections_has_no_errors(num_objects, num_images):
    rng = np.random.default_rng(0)
    truth = random_ground_truth(rng, num_images, num_objects, classes=("one",), crowd=0)
    results = as_results(exact_predictions(truth))
    errors = split_errors(assign(tables_of(truth, results), max_dets=1000))
    assert errors.ap == 100 and set(errors.gain.values()) == {0}
    assert set(errors.count.values()) == {0}


def test_more_objects_than_detections_count_are_missed():
    rng = np.random.default_rng(0)
    truth = random_ground_truth(rng, 2, 249, classes=("one",), crowd=0)
    errors = split_errors(assign(tables_of(truth, as_results(exact_predictions(truth)))))
    assert errors.count["Miss"] == 149 and errors.gain["Miss"] > 50


def test_without_detections_all_objects_are_missed():
    truth = random_ground_truth(np.random.default_rng(0), crowd=0)
    errors = split_errors(assign(tables_of(truth, [])))
    assert errors.ap == 0 and errors.count["Miss"] == 300
    assert sum(errors.count.values()) == 300


def test_nothing_at_all():
    truth = random_ground_truth(np.random.default_rng(0), num_objects=0)
    errors = split_errors(assign(tables_of(truth, [])))
    assert errors.ap == 0 and set(errors.gain.values()) == {0}
