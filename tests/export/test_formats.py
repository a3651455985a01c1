"""Formats beside ONNX: each is verified as it is written, and goes wherever a run goes."""

from __future__ import annotations

import json
import shutil

import pytest
import torch

from retinanet_ext import Predictor
from retinanet_ext.errors import InputError
from retinanet_ext.export import export
from retinanet_ext.export.compare import compare_sets
from retinanet_ext.export.options import ExportOptions
from retinanet_ext.inference.run_folder import cfg_of_run
from tests.helpers.exported import require_onnx
from tests.helpers.predicting import write_photos

FORMATS = ["torchscript", pytest.param("torch-export", marks=pytest.mark.slow), "openvino"]


@pytest.mark.parametrize("head", ["raw", "decoded", "nms"])
@pytest.mark.parametrize("format", FORMATS)
def test_it_finds_what_the_run_finds(exports, format, head):
    if (format, head) == ("torch-export", "decoded"):
        pytest.skip("is a part of nms, and takes long")
    folder = exports(head, format)
    content = json.loads((folder / "parity.json").read_text())
    assert content["passed"]
    assert content["run_by"].startswith("OpenVINO" if format == "openvino" else "PyTorch")
    assert not list(folder.glob("*.onnx")) and not (folder / "run_onnxruntime.py").exists()
    expected, got = Predictor.from_run(exports.run), Predictor.from_export(folder)
    found = compare_sets(
        [x.instances for x in expected.stream(exports.pictures)],
        [x.instances for x in got.stream(exports.pictures, batch_size=2)],
        edge=0.05,
        most=100,
    )
    assert found.count > 20 and found.missing == 0


@pytest.mark.parametrize("format", FORMATS)
def test_a_changed_sidecar_is_refused(exports, tmp_path, format):
    folder = shutil.copytree(exports("nms", format), tmp_path / "out")
    path = folder / "model.json"
    path.write_text(path.read_text().replace('"BGR"', '"RGB"'))
    with pytest.raises(InputError, match="was changed after the export"):
        Predictor.from_export(folder)


def test_other_weights_of_openvino_are_refused(exports, tmp_path):
    folder = shutil.copytree(exports("nms", "openvino"), tmp_path / "out")
    weights = bytearray((folder / "model.bin").read_bytes())
    weights[1000] ^= 255
    (folder / "model.bin").write_bytes(weights)
    with pytest.raises(InputError, match="is not the file that"):
        Predictor.from_export(folder)


@pytest.mark.slow
def test_a_program_of_torch_runs_without_this_package(exports):
    program = torch.export.load(str(exports("raw", "torch-export") / "model.pt2")).module()
    for size in ((1, 3, 33, 47), (3, 3, 128, 64)):
        outputs = program(torch.rand(size) * 255)
        assert len(outputs) == 10 and outputs[0].shape[0] == size[0]


def test_eight_bits_for_openvino(exports, tmp_path):
    require_onnx()
    pytest.importorskip("openvino", reason="needs openvino, of the extra of that name")
    photos = [str(x) for x in write_photos(tmp_path / "in").iterdir()] * 4
    options = ExportOptions(
        str(tmp_path / "out"),
        format="openvino",
        head="raw",
        exporter="torchscript",
        pictures=exports.pictures,
        precision="int8",
        calibrate=photos,
        force=True,
    )
    said: list[str] = []
    export(cfg_of_run(str(exports.run)), options, said.append)
    small = (tmp_path / "out" / "model.bin").stat().st_size
    assert small < 0.3 * (exports("raw", "openvino") / "model.bin").stat().st_size
    assert len(Predictor.from_export(tmp_path / "out")(exports.pictures[0])) > 3
    assert not list((tmp_path / "out").glob("*.onnx"))
