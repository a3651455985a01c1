"""Draws of images give the AP that pycocotools gives for those images."""

from __future__ import annotations

import copy
import dataclasses

import numpy as np
import pytest

from retinanet_ext.errors import UserError
from retinanet_ext.evaluation.analysis.bootstrap import (
    METRICS,
    _WeighedAP,
    bootstrap_ap,
    bootstrap_difference,
)
from tests.helpers.coco_results import many_detections, official, tables_of


def drawn(truth: dict, results: list[dict], weights: np.ndarray) -> tuple[dict, list[dict]]:
    """The same images as often as the weights say, as images of their own."""
    new = {"images": [], "annotations": [], "categories": truth["categories"]}
    detections = []
    for image, often in zip(truth["images"], weights.tolist(), strict=True):
        for _ in range(often):
            number = len(new["images"]) + 1
            new["images"].append({**image, "id": number})
            for row in truth["annotations"]:
                if row["image_id"] == image["id"]:
                    given = {"id": len(new["annotations"]) + 1, "image_id": number}
                    new["annotations"].append({**row, **given})
            detections += [
                {**x, "image_id": number} for x in results if x["image_id"] == image["id"]
            ]
    return new, detections


@pytest.mark.parametrize("seed", range(3))
def test_a_weighed_image_counts_as_so_many_images(seed):
    truth, results = many_detections(seed, 0.1, 0.1)
    truth["annotations"] = [x for x in truth["annotations"] if x["category_id"] != 8]
    rng = np.random.default_rng(seed)
    for weights in (np.ones(30, np.int64), np.bincount(rng.integers(30, size=30), minlength=30)):
        ours = _WeighedAP(tables_of(truth, results), 100)(weights)
        precision = official(*drawn(truth, results, weights)).eval["precision"][:, :, :, 0, 0]
        there = precision[0, 0] > -1
        assert there.sum() == 3
        means = precision[:, :, there].mean(axis=(1, 2)) * 100
        assert ours == pytest.approx([means.mean(), means[0], means[5]], abs=1e-9)


def test_a_class_that_a_draw_lacks_is_left_out_of_its_mean():
    truth, results = many_detections(0, 0.05, 0)
    weights = np.ones(30, np.int64)
    first = {x["image_id"] for x in truth["annotations"]}
    alone = min(first)
    truth["annotations"] = [
        x for x in truth["annotations"] if x["category_id"] != 2 or x["image_id"] == alone
    ]
    weights[alone - 1] = 0
    ours = _WeighedAP(tables_of(truth, results), 100)(weights)
    precision = official(*drawn(truth, results, weights)).eval["precision"][:, :, :, 0, 0]
    assert (precision[:, :, 0] == -1).all()
    assert ours[0] == pytest.approx(precision[:, :, 1:].mean() * 100, abs=1e-9)


def test_intervals_hold_the_value_and_shrink_with_more_images():
    few, many = (
        bootstrap_ap(tables_of(*(drawn(*scene, np.full(30, often)))), draws=100)
        for scene in [many_detections(0, 0.1, 0)]
        for often in (1, 4)
    )
    for name in METRICS:
        assert few[name].low < few[name].value < few[name].high
        assert many[name].std_err < 0.7 * few[name].std_err


def test_the_seed_says_which_images_are_drawn():
    tables = tables_of(*many_detections(0, 0.1, 0))
    once, again, other = (bootstrap_ap(tables, draws=20, seed=seed) for seed in (3, 3, 4))
    assert once == again != other


def test_detections_do_not_differ_from_themselves():
    tables = tables_of(*many_detections(0, 0.1, 0.1))
    for found in bootstrap_difference(tables, tables, draws=20).values():
        assert dataclasses.astuple(found) == (0, 0, 0, 0, 0)


def test_a_difference_is_surer_than_its_parts():
    truth, results = many_detections(0, 0.1, 0)
    worse = copy.deepcopy(results)
    for row in worse[::4]:
        row["bbox"][0] += 1.5
    first, second = tables_of(truth, results), tables_of(truth, worse)
    found = bootstrap_difference(first, second, draws=100)["AP"]
    alone = bootstrap_ap(first, draws=100)["AP"], bootstrap_ap(second, draws=100)["AP"]
    assert found.value == pytest.approx(alone[1].value - alone[0].value, abs=1e-9)
    assert found.high < 0 and found.above_zero == 0
    assert found.std_err < 0.5 * min(x.std_err for x in alone)


def test_other_objects_cannot_be_compared():
    truth, results = many_detections(0, 0.1, 0)
    less = {**truth, "annotations": truth["annotations"][1:]}
    with pytest.raises(UserError, match="evaluate both on the same annotations"):
        bootstrap_difference(tables_of(truth, results), tables_of(less, results))


def test_one_draw_says_nothing():
    with pytest.raises(UserError, match="two draws or more"):
        bootstrap_ap(tables_of(*many_detections(0, 0.1, 0)), draws=1)


def test_without_objects_ap_is_0_in_every_draw():
    truth, results = many_detections(0, 0.1, 0)
    found = bootstrap_ap(tables_of({**truth, "annotations": []}, results), draws=5)["AP"]
    assert dataclasses.astuple(found) == (0, 0, 0, 0, 0)
