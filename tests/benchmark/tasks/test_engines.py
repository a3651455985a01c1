"""Engines beside Detectron2: same weights, a row for each, and why one is not there."""

from __future__ import annotations

import dataclasses

import pytest

from retinanet_ext.benchmark import Benchmark, Disagreement, table
from retinanet_ext.benchmark.tasks import engines, inference
from retinanet_ext.benchmark.tasks.inference import run_inference
from retinanet_ext.errors import MissingPackageError
from tests.helpers.exported import require_onnx

NAMES = [
    "bfloat16",
    "ONNX Runtime float32",
    "ONNX Runtime int8",
    "OpenVINO float32",
    "OpenVINO bfloat16",
    "OpenVINO int8",
]


@pytest.fixture
def bench(settings, monkeypatch) -> Benchmark:
    monkeypatch.setattr(inference, "LARGE_BATCH", 2)
    return Benchmark(dataclasses.replace(settings, torchvision=False))


def by_name(bench: Benchmark) -> dict:
    start = "inference, batch 1, "
    return {x.what.removeprefix(start): x for x in bench.rows if x.what.startswith(start)}


def test_each_engine_has_a_row_beside_detectron2(bench, monkeypatch):
    require_onnx()
    monkeypatch.setattr(engines, "best_autocast", lambda device: "bfloat16")
    run_inference(bench)
    rows = by_name(bench)
    assert list(rows) == NAMES
    present = {name for name, row in rows.items() if row.ours}
    assert {"bfloat16", "ONNX Runtime float32", "ONNX Runtime int8"} <= present
    assert all(row.theirs == bench.rows[0].theirs for row in rows.values())
    for name in set(NAMES) - present:  # OpenVINO may be missing
        assert "pip install 'retinanet_ext[openvino]'" in rows[name].absent


def test_missing_packages_are_named(bench, monkeypatch):
    def missing(module: str, extra: str):
        raise MissingPackageError(f"install {extra}")

    monkeypatch.setattr(engines, "require", missing)
    monkeypatch.setattr(engines, "best_autocast", lambda device: "")
    run_inference(bench)
    rows = by_name(bench)
    absent = {name: row.absent for name, row in rows.items()}
    assert absent.pop("bfloat16") == absent.pop("OpenVINO bfloat16") == engines.NO_BFLOAT16
    assert set(absent.values()) == {"install onnx"} and bench.rows[0].ours
    assert "ONNX Runtime int8: not measured: install onnx" in table(bench, "c")


def test_no_file_is_made_when_the_time_is_up(bench, monkeypatch):
    monkeypatch.setattr(engines, "BUDGET", -1.0)
    run_inference(bench)
    rows = by_name(bench)
    assert all("took more than" in rows[name].absent for name in NAMES[1:])


def test_what_cannot_be_exported_is_said_in_each_row(bench, settings):
    keys = {"MODEL.RETINANET.CLIP_BEFORE_NMS": True, "MODEL.RETINANET.NUM_CLASSES": 3}
    changed = dataclasses.replace(settings.with_keys(keys), torchvision=False)
    made = inference.build_pair(changed)[1]
    found = engines.build_engines(changed, made, "unused", lambda line: None)
    assert all("CLIP_BEFORE_NMS" in found.absent[name] for name in NAMES[1:])


def test_a_float32_engine_that_differs_is_not_measured(bench, monkeypatch):
    def build(settings, ours, folder, say):
        other = inference.build_pair(settings)[1]
        other.head.cls_score.bias.data += 1
        return engines.Engines({"ONNX Runtime float32": other})

    monkeypatch.setattr(inference, "build_engines", build)
    with pytest.raises(Disagreement, match="inference, detections of image 0"):
        run_inference(bench)
    assert bench.rows == []


@pytest.mark.parametrize("change", ["engines", "precision", "variant"])
def test_engines_are_for_plain_float32_on_the_cpu(bench, monkeypatch, change):
    monkeypatch.setattr(inference, "build_engines", lambda *args: pytest.fail("not wanted"))
    changes = {"engines": {"engines": False}, "precision": {"precision": "bfloat16"}, "variant": {}}
    bench.settings = dataclasses.replace(bench.settings, **changes[change])
    variant = inference.Variant("same", {}) if change == "variant" else None
    run_inference(bench, variant)
    assert not by_name(bench) or list(by_name(bench)) == ["same"]
