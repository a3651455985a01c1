"""Whole models: same losses, gradients and detections before any time is taken."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from retinanet_ext.benchmark import Benchmark, Disagreement, runner
from retinanet_ext.benchmark.inputs import make_batch
from retinanet_ext.benchmark.measure import Peak
from retinanet_ext.benchmark.peers import Variant, build_side
from retinanet_ext.benchmark.tasks import end_to_end
from retinanet_ext.benchmark.tasks.end_to_end import run_inference, run_training_step, training_step


@pytest.fixture
def bench(settings, monkeypatch) -> Benchmark:
    monkeypatch.setattr(runner, "measure_in_own_process", lambda *order: Peak(9, "m"))
    return Benchmark(dataclasses.replace(settings, torchvision=False, engines=False))


@pytest.fixture
def perturbed(monkeypatch):
    """Our side's weights are not Detectron2's."""
    build_pair = end_to_end.build_pair

    def build(*args):
        theirs, ours = build_pair(*args)
        with torch.no_grad():
            ours.head.bbox_pred.bias += 0.01
        return theirs, ours

    monkeypatch.setattr(end_to_end, "build_pair", build)


def test_training_step_is_timed_and_its_memory_read(bench):
    run_training_step(bench)
    assert [(row.kind, row.against) for row in bench.rows] == [
        ("time", "detectron2"),
        ("memory", "detectron2"),
    ]
    assert "gradient, relative length" in bench.agreement["training-step"]


def test_training_step_of_other_weights_is_not_measured(bench, perturbed):
    with pytest.raises(Disagreement, match="training-step: loss_box_reg differs"):
        run_training_step(bench)
    assert bench.rows == []


def test_a_step_moves_the_weights_and_leaves_no_gradients(settings):
    for side in ("detectron2", "retinanet_ext"):
        model = build_side(settings, side)
        before = {name: p.detach().clone() for name, p in model.named_parameters()}
        fast = settings.with_keys({"SOLVER.BASE_LR": 1.0})
        step = training_step(model, fast, make_batch(settings, 2))
        step()
        moved = {n: (p - before[n]).abs().max().item() for n, p in model.named_parameters()}
        # Slowly whatever the config says, so that repeated steps on one batch stay finite.
        assert 0 < max(moved.values()) < 1e-2
        assert moved["backbone.bottom_up.stem.conv1.weight"] == 0  # frozen
        assert all(p.grad is None for p in model.parameters())


def test_inference_rows_are_latency_and_images_per_second(bench):
    run_inference(bench)
    latency, rate = bench.rows
    assert (latency.kind, rate.kind, rate.images) == ("time", "rate", 8)
    assert bench.agreement["inference"]["scores"] <= 1e-4


def test_inference_of_other_weights_is_not_measured(bench, perturbed):
    with pytest.raises(Disagreement, match="inference, detections of image 0"):
        run_inference(bench)
    assert bench.rows == []


def test_a_variant_changes_the_config_of_our_side_alone(bench, monkeypatch):
    pairs = []
    build_pair = end_to_end.build_pair
    monkeypatch.setattr(
        end_to_end, "build_pair", lambda *args: pairs.append(args) or build_pair(*args)
    )
    keys = {"MODEL.RETINANET.LOSS_KERNEL": "reference"}
    run_inference(bench, Variant("plain", keys))
    assert [row.what for row in bench.rows] == ["inference, batch 1, plain"]
    assert bench.rows[0].task == "inference-plain"
    (theirs, ours) = pairs[0]
    assert theirs.cfg.MODEL.RETINANET.LOSS_KERNEL == "auto"
    assert ours.cfg.MODEL.RETINANET.LOSS_KERNEL == "reference"


def test_torchvision_gets_rows_of_its_own(settings, monkeypatch):
    monkeypatch.setattr(runner, "measure_in_own_process", lambda *order: Peak(9, "m"))
    bench = Benchmark(dataclasses.replace(settings, batch=1))
    run_training_step(bench)
    rows = [row for row in bench.rows if row.against == "torchvision"]
    assert [row.kind for row in rows] == ["time"] and rows[0].ours == bench.rows[0].ours
