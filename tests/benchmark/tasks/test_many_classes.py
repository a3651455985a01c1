"""Convolution and loss for many classes, with the fused path where there is one."""

from __future__ import annotations

import dataclasses

import pytest

from retinanet_ext.benchmark import Benchmark, Disagreement, runner
from retinanet_ext.benchmark.measure import Peak
from retinanet_ext.benchmark.tasks.many_classes import run_many_classes
from retinanet_ext.modeling.criteria.classification import FocalLoss
from retinanet_ext.modeling.criteria.federated import FederatedFocal

SIDES: list[str] = []


@pytest.fixture
def bench(settings, monkeypatch) -> Benchmark:
    SIDES.clear()
    monkeypatch.setattr(
        runner, "measure_in_own_process", lambda _, side, __: SIDES.append(side) or Peak(9, "m")
    )
    return Benchmark(dataclasses.replace(settings, many_classes=401))


def test_rows_name_the_number_of_classes_and_the_fused_loss(bench):
    run_many_classes(bench)
    assert [(row.what, row.kind) for row in bench.rows] == [
        ("last conv + loss, K = 401", "time"),
        ("last conv + loss, K = 401, fused", "time"),
        ("last conv + loss, K = 401, FederatedFocal", "time"),
        ("last conv + loss, K = 401: memory", "memory"),
        ("last conv + loss, K = 401, fused: memory", "memory"),
        ("last conv + loss, K = 401, FederatedFocal: memory", "memory"),
    ]
    ours = ["retinanet_ext", "retinanet_ext, fused", "retinanet_ext, FederatedFocal"]
    assert ["detectron2", *ours] == SIDES
    assert bench.rows[0].theirs == bench.rows[1].theirs == bench.rows[2].theirs
    assert bench.rows[3].logits_bytes == 4 * 401 * 9 * 129  # one image of 129 locations


def test_a_loss_that_cannot_be_fused_has_no_such_rows(bench, monkeypatch):
    monkeypatch.delattr(FocalLoss, "from_features")
    run_many_classes(bench)
    assert not [row for row in bench.rows if "fused" in row.what or "Federated" in row.what]


def test_a_wrong_federated_loss_is_not_measured(bench, monkeypatch):
    sample = FederatedFocal.sample
    monkeypatch.setattr(FederatedFocal, "sample", lambda *args: sample(*args)[1:])
    with pytest.raises(Disagreement, match=r"many-classes"):
        run_many_classes(bench)


def test_a_wrong_fused_loss_is_not_measured(bench, monkeypatch):
    from_features = FocalLoss.from_features
    monkeypatch.setattr(
        FocalLoss, "from_features", lambda self, *args: 1.01 * from_features(self, *args)
    )
    with pytest.raises(Disagreement, match=r"many-classes: loss_cls differs by 0\.01"):
        run_many_classes(bench)
    assert bench.rows == [] and SIDES == []
