"""Whole models: the same detections before any time is taken."""

from __future__ import annotations

import dataclasses

import pytest

from retinanet_ext.benchmark import Benchmark, Disagreement, runner
from retinanet_ext.benchmark.measure import Peak
from retinanet_ext.benchmark.peers import Variant
from retinanet_ext.benchmark.tasks import inference
from retinanet_ext.benchmark.tasks.inference import run_inference


@pytest.fixture
def bench(settings, monkeypatch) -> Benchmark:
    monkeypatch.setattr(runner, "measure_in_own_process", lambda *order: Peak(9, "m"))
    return Benchmark(dataclasses.replace(settings, torchvision=False, engines=False))


@pytest.fixture
def perturbed(perturb) -> None:
    perturb(inference)


def test_inference_rows_are_latency_and_images_per_second(bench):
    run_inference(bench)
    latency, rate = bench.rows
    assert (latency.kind, rate.kind, rate.images) == ("time", "rate", 8)
    assert bench.agreement["inference"]["scores"] <= 1e-4


def test_inference_of_other_weights_is_not_measured(bench, perturbed):
    with pytest.raises(Disagreement, match="inference, detections of image 0"):
        run_inference(bench)
    assert bench.rows == []


def test_a_variant_changes_only_the_config_of_our_side(bench, monkeypatch):
    pairs = []
    build_pair = inference.build_pair
    monkeypatch.setattr(
        inference, "build_pair", lambda *args: pairs.append(args) or build_pair(*args)
    )
    keys = {"MODEL.RETINANET.LOSS_KERNEL": "reference"}
    run_inference(bench, Variant("plain", keys))
    assert [row.what for row in bench.rows] == ["inference, batch 1, plain"]
    assert bench.rows[0].task == "inference-plain"
    (theirs, ours) = pairs[0]
    assert theirs.cfg.MODEL.RETINANET.LOSS_KERNEL == "auto"
    assert ours.cfg.MODEL.RETINANET.LOSS_KERNEL == "reference"
