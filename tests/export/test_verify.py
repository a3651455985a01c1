"""The comparison with PyTorch fails where anything is not as it says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from retinanet_ext.export import job
from retinanet_ext.export.reference import plain_predictor
from retinanet_ext.export.verify import ExportRejected, reject, verify
from retinanet_ext.inference.exported import engines
from retinanet_ext.inference.exported.sidecar import file_digest
from retinanet_ext.inference.run_folder import cfg_of_run
from tests.helpers.exported import export_run, require_onnx

HEADS = pytest.mark.parametrize("head", ["raw", "nms"])


@pytest.fixture(scope="module")
def predictor(exports):
    return plain_predictor(cfg_of_run(str(exports.run)))


def sign(folder: Path) -> None:
    """Let the file go with its changed model.json, as if it had been exported so."""
    import onnx

    model = onnx.load(str(folder / "model.onnx"))
    meta = json.loads((folder / "model.json").read_text())
    from retinanet_ext.inference.exported.sidecar import digest_of

    onnx.helper.set_model_props(model, {engines.SIDECAR_KEY: digest_of(meta)})
    onnx.save(model, str(folder / "model.onnx"))
    meta["model"]["sha256"] = file_digest(str(folder / "model.onnx"))
    (folder / "model.json").write_text(json.dumps(meta))


def changed(folder: Path, part: str, key: str, value: Any) -> Path:
    meta = json.loads((folder / "model.json").read_text())
    assert meta[part][key] != value
    meta[part][key] = value
    (folder / "model.json").write_text(json.dumps(meta))
    sign(folder)
    return folder


@HEADS
def test_what_was_exported_passes(exports, predictor, tmp_path, head):
    folder = exports.copy(tmp_path, head)
    checks = verify(str(folder), predictor, exports.pictures)
    assert all(x.passed for x in checks)
    content = json.loads((folder / "parity.json").read_text())
    assert content["passed"] is True and len(content["checks"]) == len(checks) > 20


@HEADS
@pytest.mark.parametrize(
    ("part", "key", "value", "what"),
    [
        ("input", "channels", "RGB", "pixels by preprocess.py"),
        ("input", "mean", [123.675, 116.28, 103.53], "input normalised by model.json"),
        ("input", "std", [58.395, 57.12, 57.375], "input normalised by model.json"),
        ("input", "divisor", 16, "input normalised by model.json"),
        ("resize", "shorter", 65, "pixels by preprocess.py"),
        ("resize", "longer", 80, "pixels by preprocess.py"),
    ],
)
def test_a_false_sidecar_is_found(exports, predictor, tmp_path, head, part, key, value, what):
    folder = changed(exports.copy(tmp_path, head), part, key, value)
    checks = verify(str(folder), predictor, exports.pictures)
    assert what in {x.what for x in checks if not x.passed}
    with pytest.raises(ExportRejected, match="differs from PyTorch"):
        reject(str(folder), checks)
    assert (folder / "model.onnx.rejected").is_file() and not (folder / "model.onnx").exists()
    assert json.loads((folder / "parity.json").read_text())["passed"] is False


def test_names_in_another_order_are_found(exports, predictor, tmp_path):
    folder = exports.copy(tmp_path)
    meta = json.loads((folder / "model.json").read_text())
    meta["classes"].reverse()
    (folder / "model.json").write_text(json.dumps(meta))
    sign(folder)
    checks = verify(str(folder), predictor, exports.pictures)
    assert "class names in model.json" in {x.what for x in checks if not x.passed}


def test_false_anchors_of_raw_outputs_are_found(exports, predictor, tmp_path):
    folder = exports.copy(tmp_path, "raw")
    meta = json.loads((folder / "model.json").read_text())
    meta["anchors"]["levels"][0]["cells"][0][0] -= 1
    (folder / "model.json").write_text(json.dumps(meta))
    sign(folder)
    checks = verify(str(folder), predictor, exports.pictures)
    assert "predictions without a counterpart" in {x.what for x in checks if not x.passed}


@HEADS
def test_other_weights_are_found(exports, predictor, tmp_path, head):
    onnx = pytest.importorskip("onnx", reason="needs onnx, of the extra of that name")
    folder = exports.copy(tmp_path, head)
    model = onnx.load(str(folder / "model.onnx"))
    largest = max(model.graph.initializer, key=lambda x: len(x.raw_data))
    values = np.frombuffer(largest.raw_data, np.float32) * 1.001
    largest.raw_data = values.astype(np.float32).tobytes()
    onnx.save(model, str(folder / "model.onnx"))
    sign(folder)
    assert not all(x.passed for x in verify(str(folder), predictor, exports.pictures))


def test_a_module_that_computes_something_else_is_rejected_by_the_export(
    exports, tmp_path, monkeypatch
):
    require_onnx()

    class Wrong(job.ExportableRetinaNet):
        def _padded(self, images: torch.Tensor) -> torch.Tensor:
            return super()._padded(images) + 0.01

    monkeypatch.setattr(job, "ExportableRetinaNet", Wrong)
    with pytest.raises(ExportRejected) as error:
        export_run(exports.run, tmp_path / "out", pictures=exports.pictures)
    assert error.value.exit_code == 1
    assert (tmp_path / "out" / "model.onnx.rejected").is_file()
    assert not (tmp_path / "out" / "model.onnx").exists()
    assert "parity.json" in str(error.value)
