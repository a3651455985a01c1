"""Which tasks there are, and in which order they run."""

from __future__ import annotations

import pytest

from retinanet_ext.benchmark import Benchmark, peers, run_tasks, task_names
from retinanet_ext.benchmark.peers import Variant
from retinanet_ext.benchmark.tasks import build


@pytest.fixture
def ran(monkeypatch) -> list:
    done: list = []
    names = list(build.TASKS)
    monkeypatch.setattr(
        build, "TASKS", {name: lambda bench, name=name: done.append(name) for name in names}
    )
    monkeypatch.setattr(
        build, "run_inference", lambda bench, variant: done.append(f"variant {variant.name}")
    )
    return done


def test_chosen_tasks_run_in_their_order_and_are_counted(settings, ran):
    said: list[str] = []
    run_tasks(Benchmark(settings, say=said.append), ["training-step", "loss"])
    assert ran == ["loss", "training-step"]
    assert said == ["[1/2] loss", "[2/2] training-step"]


def test_a_variant_is_a_task_after_inference(settings, ran, monkeypatch):
    variant = Variant("plain", {"MODEL.RETINANET.LOSS_KERNEL": "reference"})
    monkeypatch.setattr(peers, "VARIANTS", (variant,))
    names = task_names(settings.cfg)
    assert names[names.index("inference") + 1] == "inference-plain"
    run_tasks(Benchmark(settings), ["inference-plain"])
    assert ran == ["variant plain"]
