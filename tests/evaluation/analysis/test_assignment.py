"""Detections find the objects that pycocotools says they find."""

from __future__ import annotations

import numpy as np
import pytest

from retinanet_ext.errors import UserError
from retinanet_ext.evaluation.analysis import assign
from tests.helpers.coco_results import as_results, many_detections, official, tables_of
from tests.helpers.coco_scenes import CLASSES, noisy_predictions, random_ground_truth


def scene(seed: int):
    """Crowds, tied scores, an image and a class without objects, and a class never detected."""
    rng = np.random.default_rng(seed)
    truth = random_ground_truth(rng, crowd=0.15)
    results = as_results(noisy_predictions(rng, truth, noise=0.1))
    never_there, never_detected = 2, 5
    kept = [x for x in truth["annotations"] if x["category_id"] != never_there]
    truth["annotations"] = [{**x, "id": i} for i, x in enumerate(kept, start=1)]
    return truth, [x for x in results if x["category_id"] != never_detected]


@pytest.mark.parametrize("max_dets", [100, 2])
@pytest.mark.parametrize("seed", range(4))
def test_it_is_that_of_pycocotools(seed, max_dets):
    truth, results = scene(seed)
    if seed == 3:
        truth, results = many_detections(seed, 0.2, 0.2)
    theirs, tables = official(truth, results, max_dets), tables_of(truth, results)
    row_of = {given + 1: row for row, given in enumerate(tables.detections.given.tolist())}
    matched = ignored = 0
    for t, iou in enumerate(theirs.params.iouThrs):
        ours = assign(tables, float(iou), max_dets)
        counted = set()
        for image in theirs.evalImgs:
            if image is None or image["aRng"] != theirs.params.areaRng[0]:
                continue
            for found, match, ignore in zip(
                image["dtIds"], image["dtMatches"][t], image["dtIgnore"][t], strict=True
            ):
                row = row_of[found]
                counted.add(row)
                n = ours.object_of[row]
                assert match == (tables.objects.annotation[n] + 1 if n >= 0 else 0)
                assert ignore == ours.ignored[row]
                matched, ignored = matched + (match > 0), ignored + bool(ignore)
            for annotation, match, crowd in zip(
                image["gtIds"], image["gtMatches"][t], image["gtIgnore"], strict=True
            ):
                n = int(np.flatnonzero(tables.objects.annotation == annotation - 1)[0])
                assert crowd or match == (
                    tables.detections.given[ours.detection_of[n]] + 1
                    if ours.detection_of[n] >= 0
                    else 0
                )
        assert set(np.flatnonzero(ours.counted).tolist()) == counted
    assert matched > 100 and ignored > 10


def test_of_equal_scores_and_overlaps_it_takes_what_pycocotools_takes():
    truth, _ = scene(0)
    box = [10.0, 10.0, 40.0, 40.0]
    truth["annotations"] = [
        {"id": i, "image_id": 1, "category_id": 5, "bbox": box, "area": 1600.0, "iscrowd": crowd}
        for i, crowd in ((1, 1), (2, 0), (3, 0))
    ]
    row = {"image_id": 1, "category_id": 5, "bbox": box, "score": 0.5}
    tables = tables_of(truth, [dict(row) for _ in range(4)])
    (image,) = [
        x
        for x in official(truth, [dict(row) for _ in range(4)]).evalImgs
        if x is not None and x["aRng"][0] == 0 and x["aRng"][1] > 1e9
    ]
    assert image["dtMatches"][0].tolist() == [3, 2, 1, 1]
    assert (tables.objects.annotation[assign(tables).object_of] + 1).tolist() == [3, 2, 1, 1]
    assert assign(tables).ignored.tolist() == [False, False, True, True]


@pytest.mark.parametrize("what", ["objects", "detections", "both"])
def test_nothing_to_assign(what):
    truth, results = scene(1)
    if what != "detections":
        truth["annotations"] = []
    if what != "objects":
        results = []
    found = assign(tables_of(truth, results))
    assert not found.right.any() and found.wrong.sum() == found.counted.sum()
    assert found.missed.sum() == found.tables.num_objects.sum()


@pytest.mark.parametrize("iou, max_dets", [(0.05, 100), (1.01, 100), (float("nan"), 9), (0.5, 0)])
def test_limits_that_make_no_sense_are_refused(iou, max_dets):
    truth, results = scene(0)
    with pytest.raises(UserError, match=r"between 0.1 and 1|set it to 1 or more"):
        assign(tables_of(truth, results), iou, max_dets)


def test_a_score_that_is_no_number_is_refused():
    truth, results = scene(0)
    results[7]["score"] = float("nan")
    with pytest.raises(UserError, match="detection 7 is NaN"):
        tables_of(truth, results)


def test_classes_are_in_the_order_of_their_ids_whatever_the_order_in_the_file():
    truth, results = scene(0)
    truth["categories"].reverse()
    assert tables_of(truth, results).names == list(CLASSES)
