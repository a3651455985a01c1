"""Pictures per second: as many pictures as the time allows, and a row for each precision."""

from __future__ import annotations

import importlib.util

import pytest

from retinanet_ext.benchmark import Benchmark, Disagreement
from retinanet_ext.benchmark.tasks import predicting
from retinanet_ext.benchmark.tasks.predicting import BATCH, MOST_PICTURES, run_predict
from retinanet_ext.export.quantize import FEWEST_PICTURES
from retinanet_ext.inference import Predictor


@pytest.fixture(autouse=True)
def plain_machine(monkeypatch):
    """Neither bfloat16 nor ONNX Runtime, wherever this runs."""
    monkeypatch.setattr(predicting, "best_autocast", lambda device: "")
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name.startswith("onnx") else find(name)
    )


@pytest.mark.parametrize(
    ("seconds", "pictures"), [(1e-9, MOST_PICTURES), (0.0625, 96), (0.1, 56), (4.7, 8), (600, 8)]
)
def test_slow_models_get_fewer_pictures_in_whole_batches(seconds, pictures):
    assert predicting._num_pictures(seconds) == pictures
    assert pictures % BATCH == 0


def test_streams_are_timed_after_their_detections_agree(settings):
    bench = Benchmark(settings)
    run_predict(bench)
    (row,) = bench.rows
    assert row.what == "predict, 6 files, batch 8" and row.images == 6 and row.ratio
    assert set(bench.agreement["predict"]) == {"scores", "boxes, pixels"}


def test_other_detections_are_not_measured(settings, monkeypatch):
    stream = Predictor.stream

    def fewer(self, *args, **kwargs):
        return (x.above(0.5) for x in stream(self, *args, **kwargs))

    monkeypatch.setattr(Predictor, "stream", fewer)
    bench = Benchmark(settings)
    with pytest.raises(Disagreement, match="predict"):
        run_predict(bench)
    assert bench.rows == []


def test_what_is_not_exact_has_rows_of_its_own(settings, monkeypatch):
    monkeypatch.setattr(predicting, "best_autocast", lambda device: "bfloat16")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: True)
    monkeypatch.setattr(predicting, "INT8_BELOW", float("inf"))  # however busy the machine is
    exported = []

    def from_export(path):
        cfg, options = exported[-1]
        assert path == options.output
        return Predictor(cfg, class_names=["a", "b", "c"])

    monkeypatch.setattr(predicting, "export", lambda *order: exported.append(order))
    monkeypatch.setattr(Predictor, "from_export", staticmethod(from_export))
    bench = Benchmark(settings)
    run_predict(bench)
    names = [row.what.removeprefix("predict, 6 files, batch 8") for row in bench.rows]
    assert names == ["", ", bfloat16", ", int8 by ONNX Runtime"]
    ((cfg, options),) = exported
    assert (options.precision, options.head) == ("int8", "raw")
    assert len(options.calibrate) == FEWEST_PICTURES and cfg.MODEL.SPEEDUPS.AUTOCAST == ""


def test_slow_models_are_not_exported(settings, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: True)
    monkeypatch.setattr(predicting, "INT8_BELOW", 0.0)
    said: list[str] = []
    bench = Benchmark(settings, said.append)
    run_predict(bench)
    assert len(bench.rows) == 1 and any("without int8" in line for line in said)
