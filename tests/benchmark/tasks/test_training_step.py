"""A training step: the same losses and gradients before any time is taken."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from retinanet_ext.benchmark import Benchmark, Disagreement, runner
from retinanet_ext.benchmark.inputs import make_batch
from retinanet_ext.benchmark.measure import Peak
from retinanet_ext.benchmark.peers import build_side
from retinanet_ext.benchmark.tasks import training_step as steps
from retinanet_ext.benchmark.tasks.training_step import run_training_step, training_step


@pytest.fixture
def bench(settings, monkeypatch) -> Benchmark:
    monkeypatch.setattr(runner, "measure_in_own_process", lambda *order: Peak(9, "m"))
    return Benchmark(dataclasses.replace(settings, torchvision=False))


@pytest.fixture
def perturbed(perturb) -> None:
    perturb(steps)


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


def test_torchvision_gets_rows_of_its_own(settings, monkeypatch):
    monkeypatch.setattr(runner, "measure_in_own_process", lambda *order: Peak(9, "m"))
    bench = Benchmark(dataclasses.replace(settings, batch=1))
    run_training_step(bench)
    rows = [row for row in bench.rows if row.against == "torchvision"]
    assert [row.kind for row in rows] == ["time"] and rows[0].ours == bench.rows[0].ours


def test_each_side_has_its_own_adamw(settings):
    adamw = settings.with_keys({"SOLVER.OPTIMIZER": "AdamW", "SOLVER.WEIGHT_DECAY_BIAS": 0.0})
    optimizers = {}
    for side in ("detectron2", "retinanet_ext"):
        model = build_side(adamw, side)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(steps, "_step", lambda model, optimizer, *rest: optimizer)
            optimizers[side] = training_step(model, adamw, make_batch(adamw, 1), side)
    theirs, ours = optimizers.values()
    assert type(theirs) is torch.optim.AdamW and isinstance(ours, torch.optim.AdamW)
    for left, right in zip(theirs.param_groups, ours.param_groups, strict=True):
        assert left["fused"] is None and right["fused"]
        same = ("lr", "weight_decay", "eps")
        assert [left[x] for x in same] == [right[x] for x in same]
        assert tuple(left["betas"]) == tuple(right["betas"])
        assert len(left["params"]) == len(right["params"])


def test_the_optimizer_is_named_in_the_rows(bench):
    bench.settings = bench.settings.with_keys({"SOLVER.OPTIMIZER": "AdamW"})
    run_training_step(bench)
    assert bench.rows[0].note == "forward, backward, AdamW"


def test_rounding_of_a_small_network_is_no_disagreement(bench):
    """Batch norm over few pixels and ReLU: rounding by itself changes the gradient by over 1e-3."""
    keys = {
        "MODEL.RESNETS.NORM": "BN",
        "MODEL.BACKBONE.FREEZE_AT": 0,
        "MODEL.FPN.NORM": "BN",
        "MODEL.SPEEDUPS.CHANNELS_LAST": "all",
    }
    bench.settings = dataclasses.replace(bench.settings, size=(192, 256)).with_keys(keys)
    run_training_step(bench)
    found = bench.agreement["training-step"]
    by_rounding = found.get("of Detectron2's with rounded weights", 0.0)
    assert found["gradient, relative length"] <= max(1e-3, 2 * by_rounding)


def test_a_wrong_gradient_is_no_rounding(bench, monkeypatch):
    build_pair = steps.build_pair

    def build(*args):
        theirs, ours = build_pair(*args)
        for p in ours.parameters():
            if p.requires_grad:
                p.register_hook(lambda gradient: gradient * 1.01)
        return theirs, ours

    monkeypatch.setattr(steps, "build_pair", build)
    with pytest.raises(Disagreement, match=r"all parameters differs by 0\.01.*rounding"):
        run_training_step(bench)
