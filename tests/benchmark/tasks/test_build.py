"""Which tasks there are, and in which order they run."""

from __future__ import annotations

import pytest

from retinanet_ext.benchmark import Benchmark, run_tasks, task_names
from retinanet_ext.benchmark.tasks import build


@pytest.fixture
def ran(monkeypatch) -> list:
    done: list = []
    names = list(build.TASKS)
    monkeypatch.setattr(
        build, "TASKS", {name: lambda bench, name=name: done.append(name) for name in names}
    )
    for name in build.VARIED:
        monkeypatch.setitem(
            build.VARIED,
            name,
            lambda bench, variant, name=name: done.append(f"{name}, {variant.name}"),
        )
    return done


def test_chosen_tasks_run_in_their_order_and_are_counted(settings, ran):
    said: list[str] = []
    run_tasks(Benchmark(settings, say=said.append), ["training-step", "loss"])
    assert ran == ["loss", "training-step"]
    assert said == ["[1/2] loss", "[2/2] training-step"]


@pytest.mark.parametrize("task", ["training-step", "inference"])
def test_a_variant_is_a_task_after_its_own(settings, ran, task):
    names = task_names(settings.cfg)
    assert names[names.index(task) + 1] == f"{task}-compiled"
    run_tasks(Benchmark(settings), [f"{task}-compiled"])
    assert ran == [f"{task}, compiled"]
