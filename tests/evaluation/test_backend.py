"""faster-coco-eval is used where its numbers are pycocotools'."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from retinanet_ext.evaluation import backend as backend_module
from tests.helpers.coco_scenes import (
    exact_predictions,
    noisy_predictions,
    random_ground_truth,
    score,
)


@pytest.fixture
def needs_fast_engine() -> None:
    if backend_module.fast_engine() is None:
        pytest.skip("faster-coco-eval is not installed")


@pytest.mark.parametrize("max_dets", [None, 5, 100, 300])
@pytest.mark.parametrize("seed", range(3))
def test_fast_engine_equals_pycocotools(register, needs_fast_engine, seed, max_dets):
    rng = np.random.default_rng(seed)
    truth = random_ground_truth(rng)
    name, predictions = register(truth), noisy_predictions(rng, truth, noise=0.08)
    fast = score(name, predictions, max_dets_per_image=max_dets)
    slow = score(name, predictions, max_dets_per_image=max_dets, use_fast_impl=False)
    assert list(fast) == list(slow)
    assert 5 < fast["AP"] < 95  # neither trivially bad nor perfect
    assert fast == pytest.approx(slow, abs=1e-9, nan_ok=True)


@pytest.mark.parametrize("noise", [0.05, 0.12])
def test_fast_engine_equals_pycocotools_on_real_boxes(
    register, needs_fast_engine, shared_datasets, noise
):
    path = shared_datasets / "bccd" / "annotations" / "instances_val.json"
    truth = json.loads(path.read_text())
    name = register(truth)
    predictions = noisy_predictions(np.random.default_rng(1), truth, noise)
    fast = score(name, predictions)
    assert 5 < fast["AP"] < 95
    slow = score(name, predictions, use_fast_impl=False)
    assert fast == pytest.approx(slow, abs=1e-9, nan_ok=True)


def test_fast_engine_is_the_one_that_runs(register, needs_fast_engine, monkeypatch):
    def refuse(*args: Any) -> None:
        raise AssertionError("pycocotools was used")

    truth = random_ground_truth(np.random.default_rng(0), num_images=4, num_objects=8)
    name = register(truth)
    monkeypatch.setattr(backend_module, "COCOeval", refuse)
    assert score(name, exact_predictions(truth))["AP"] == pytest.approx(100)
    with pytest.raises(AssertionError, match="pycocotools was used"):
        score(name, exact_predictions(truth), use_fast_impl=False)


def test_pycocotools_is_used_without_faster_coco_eval(register, monkeypatch):
    def not_installed(name: str) -> str:
        raise backend_module.importlib.metadata.PackageNotFoundError(name)

    truth = random_ground_truth(np.random.default_rng(0), num_images=4, num_objects=8)
    monkeypatch.setattr(backend_module.importlib.metadata, "version", not_installed)
    assert backend_module.fast_engine() is None
    assert score(register(truth), exact_predictions(truth))["AP"] == pytest.approx(100)


@pytest.mark.parametrize("version", ["1.5.9", "0.9", "unknown"])
def test_untested_version_of_faster_coco_eval_is_not_used(monkeypatch, version):
    monkeypatch.setattr(backend_module.importlib.metadata, "version", lambda name: version)
    assert backend_module.fast_engine() is None


@pytest.mark.parametrize("use_fast_impl", [True, False])
def test_limit_on_detections_reaches_ap(register, caplog, use_fast_impl):
    # One image, one class, 150 objects: COCO's limit of 100 can find two thirds of them.
    rng = np.random.default_rng(0)
    truth = random_ground_truth(rng, 1, 150, classes=("cell",), crowd=0)
    for i, ann in enumerate(truth["annotations"]):  # a grid: no object overlaps another
        ann["bbox"] = [40.0 * (i % 15), 40.0 * (i // 15), 30.0, 30.0]
        ann["area"] = 900.0
    name, predictions = register(truth), exact_predictions(truth)
    at_100 = score(name, predictions, use_fast_impl=use_fast_impl)
    assert at_100["AR100"] == pytest.approx(100 * 100 / 150)
    assert at_100["AP"] == pytest.approx(100 * 67 / 101)  # recall thresholds 0, 0.01, .. 0.66
    assert "raise TEST.DETECTIONS_PER_IMAGE" in caplog.text

    at_120 = score(name, predictions, use_fast_impl=use_fast_impl, max_dets_per_image=120)
    assert set(at_120) - set(at_100) == {"AR120"}
    assert at_120["AR100"] == at_100["AR100"]
    assert at_120["AR120"] == at_120["ARs"] == pytest.approx(80)
    assert at_120["AP"] == pytest.approx(100 * 81 / 101)

    at_50 = score(name, predictions, use_fast_impl=use_fast_impl, max_dets_per_image=50)
    assert set(at_50) == set(at_100)  # "AR50" would read as AR at IoU 0.50
    assert at_50["AR100"] == at_50["ARs"] == pytest.approx(100 / 3)
    assert at_50["AP"] == pytest.approx(100 * 34 / 101)


BOX = ([10.0, 10.0, 60.0, 60.0], 0.9, 0)


def test_string_image_ids_are_evaluated(standard_dicts):
    # faster-coco-eval takes numbers only.
    name, dicts = standard_dicts
    for d in dicts:
        d["image_id"] = f"scene-{d['image_id']}"
    metrics = score(name, {f"scene-{i}": [BOX] for i in range(3)})
    assert metrics["AP"] == pytest.approx(100)
