"""From works to rows."""

from __future__ import annotations

import pytest

from retinanet_ext.benchmark import Benchmark, runner
from retinanet_ext.benchmark.measure import Peak
from retinanet_ext.benchmark.process import OutOfMemory


def nothing() -> None:
    pass


def test_each_peer_gets_a_row_with_the_same_samples_of_ours(settings):
    bench = Benchmark(settings)
    works = {"retinanet_ext": nothing, "detectron2": nothing, "torchvision": nothing}
    bench.time("t", "w", works)
    assert [row.against for row in bench.rows] == ["detectron2", "torchvision"]
    assert bench.rows[0].ours == bench.rows[1].ours != bench.rows[0].theirs


def test_another_way_of_ours_is_set_beside_detectron2_only(settings):
    bench = Benchmark(settings)
    works = {"retinanet_ext": nothing, "retinanet_ext, fast": nothing}
    peers = {"detectron2": nothing, "torchvision": nothing}
    bench.time("t", "w", {**works, **peers}, absent={"retinanet_ext, other": "not here"})
    rows = [(row.what, row.against, bool(row.ours), row.absent) for row in bench.rows]
    assert rows == [
        ("w", "detectron2", True, ""),
        ("w, fast", "detectron2", True, ""),
        ("w, other", "detectron2", False, "not here"),
        ("w", "torchvision", True, ""),
    ]
    assert all(row.theirs_cpu and bool(row.ours_cpu) == bool(row.ours) for row in bench.rows)


def test_each_measurement_is_announced_before_it_starts(settings, monkeypatch):
    said: list[str] = []
    monkeypatch.setattr(
        runner, "measure_in_own_process", lambda *_: said.append("!") or Peak(1, "")
    )
    bench = Benchmark(settings, say=said.append)
    bench.time("t", "w", {"retinanet_ext": lambda: said.append("."), "detectron2": nothing})
    bench.memory("t", "w", settings)
    assert "timing w" in said[0] and said[1] == "."
    marks = [i for i, line in enumerate(said) if line == "!"]
    assert ["detectron2" in said[i - 1] for i in marks] == [True, False]
    assert "retinanet_ext" in said[marks[1] - 1]


def test_a_side_without_enough_memory_leaves_an_empty_sample(settings, monkeypatch):
    def measure(name, side, settings):
        if side == "detectron2":
            raise OutOfMemory("killed")
        return Peak(5, "ru_maxrss, lower bound")

    monkeypatch.setattr(runner, "measure_in_own_process", measure)
    bench = Benchmark(settings)
    bench.memory("t", "w", settings)
    (row,) = bench.rows
    assert (row.theirs, row.ours, row.ratio) == ((), (5.0,), None)


def test_a_lower_bound_is_noted(settings, monkeypatch):
    monkeypatch.setattr(runner, "measure_in_own_process", lambda *_: Peak(5, "x, lower bound"))
    bench = Benchmark(settings)
    bench.memory("t", "w", settings, note="n")
    assert bench.rows[0].note == "n; x, lower bound"


def test_the_largest_difference_is_kept(settings):
    bench = Benchmark(settings)
    bench.agree("t", {"a": 1.0}, {"b": 2.0})
    bench.agree("t", {"a": 3.0})
    bench.agree("t", {"a": 2.0})
    assert bench.agreement == {"t": {"a": 3.0, "b": 2.0}}


def test_a_failing_process_is_no_result(settings, monkeypatch):
    def fail(*_):
        raise RuntimeError("a bug")

    monkeypatch.setattr(runner, "measure_in_own_process", fail)
    with pytest.raises(RuntimeError, match="a bug"):
        Benchmark(settings).memory("t", "w", settings)
