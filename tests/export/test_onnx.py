"""ONNX files: PyTorch's numbers at sizes and batches never traced, by ONNX's operators."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from retinanet_ext import Predictor
from retinanet_ext.errors import InputError
from retinanet_ext.export.compare import compare_sets
from retinanet_ext.export.reference import Reference, instances_of, plain_predictor
from retinanet_ext.inference.run_folder import cfg_of_run
from tests.helpers.exported import export_run, require_onnx

SIZES = [(2, 64, 96), (1, 64, 96), (3, 200, 133), (1, 33, 47), (3, 96, 64)]


@pytest.fixture(scope="module")
def reference(exports) -> Reference:
    return Reference(plain_predictor(cfg_of_run(str(exports.run))))


def session_of(folder):
    import onnxruntime

    return onnxruntime.InferenceSession(
        str(folder / "model.onnx"), providers=["CPUExecutionProvider"]
    )


def outputs_of(session, images: np.ndarray) -> dict[str, np.ndarray]:
    names = [x.name for x in session.get_outputs()]
    return dict(zip(names, session.run(names, {"images": images}), strict=True))


def pixels(count: int, height: int, width: int) -> np.ndarray:
    random = np.random.default_rng(height)
    return random.uniform(0, 255, (count, 3, height, width)).astype(np.float32)


def assert_equal(head: str, reference: Reference, session, images: np.ndarray) -> None:
    """Raw outputs within 1e-4; boxes within 1e-2 px and 1e-5."""
    outputs = outputs_of(session, images)
    if head == "raw":
        expected = reference.raw(images)
        assert outputs.keys() == expected.keys()
        for name, value in expected.items():
            np.testing.assert_allclose(outputs[name], value, rtol=0, atol=1e-4)
        return
    boxes = reference.candidates(images) if head == "decoded" else reference.detections(images)
    got = instances_of(outputs, images.shape[2:])
    found = compare_sets(boxes, got, edge=0.05, most=100 if head == "nms" else 0)
    assert found.count > 20 and found.missing == 0
    if head == "nms":
        assert outputs["count"].tolist() == [len(x) for x in got]


@pytest.mark.parametrize("head", ["raw", "decoded", "nms"])
def test_any_size_and_batch_is_that_of_pytorch(exports, reference, head):
    session = session_of(exports(head))
    for size in SIZES:
        assert_equal(head, reference, session, pixels(*size))


@pytest.mark.parametrize("head", ["raw", "decoded", "nms"])
def test_the_file_is_whole_and_holds_standard_operators_only(exports, head):
    folder = exports(head)
    import onnx

    model = onnx.load(str(folder / "model.onnx"), load_external_data=False)
    onnx.checker.check_model(model, full_check=True)
    assert {node.domain for node in model.graph.node} == {""} and not model.functions
    assert [x.domain for x in model.opset_import] == [""]
    assert model.opset_import[0].version == 18
    assert not [x for x in model.graph.initializer if x.external_data]
    assert "Resize" not in {
        x.op_type for x in model.graph.node if "antialias" in {a.name for a in x.attribute}
    }
    assert str(exports.folder).encode() not in (folder / "model.onnx").read_bytes()
    there = {path.name for path in folder.iterdir()}
    assert there == {
        "model.onnx",
        "model.json",
        "parity.json",
        "golden.npz",
        "preprocess.py",
        "decode.py",
        "run_onnxruntime.py",
    }


def test_the_stored_outputs_come_out_again(exports):
    folder = exports("nms")
    golden = np.load(folder / "golden.npz")
    outputs = outputs_of(session_of(folder), golden["images"])
    assert set(golden.files) == {"images", *outputs}
    for name, value in outputs.items():
        np.testing.assert_allclose(value, golden[name], rtol=0, atol=1e-4)


def test_the_comparison_covers_three_sizes_and_two_batches(exports):
    content = json.loads((exports("decoded") / "parity.json").read_text())
    assert content["passed"] and content["run_by"].startswith("ONNX Runtime")
    assert len(content["pictures"]) >= 3
    where = {x["detail"] for x in content["checks"] if "batch" in x["detail"]}
    assert len([x for x in where if x.startswith("batch 1 ")]) == 3
    assert len([x for x in where if x.startswith("batch 3 ")]) == 3


@pytest.mark.slow
@pytest.mark.parametrize("head", ["raw", "nms"])
def test_the_exporter_of_programs_makes_the_same(exports, reference, tmp_path, head):
    require_onnx()
    pytest.importorskip("onnxscript", reason="needs onnxscript, of the extra onnx")
    export_run(exports.run, tmp_path / "out", head=head, exporter="dynamo")
    session = session_of(tmp_path / "out")
    for size in SIZES:
        assert_equal(head, reference, session, pixels(*size))


def test_a_fixed_size_and_batch_are_kept_and_padded(exports, reference, tmp_path):
    require_onnx()
    said: list[str] = []
    folder = tmp_path / "out"
    from retinanet_ext.export import ExportOptions, export

    options = ExportOptions(
        str(folder),
        batch=2,
        size=(100, 128),
        exporter="torchscript",
        pictures=exports.pictures,
    )
    export(cfg_of_run(str(exports.run)), options, said.append)
    assert "100x128 is made 128x128" in said[0]
    session = session_of(folder)
    assert session.get_inputs()[0].shape == [2, 3, 128, 128]
    assert_equal("nms", reference, session, pixels(2, 128, 128))
    predictor = Predictor.from_export(folder)
    for path, found in zip(exports.pictures, predictor.stream(exports.pictures, 3), strict=True):
        assert len(found) > 3, path
    predictor = Predictor.from_export(
        folder, opts=["INPUT.MIN_SIZE_TEST", 100, "INPUT.MAX_SIZE_TEST", 400]
    )
    with pytest.raises(InputError, match="does not fit into the 128 x 128 px"):
        predictor(exports.pictures[1])


def test_fewer_candidates_than_detections(exports, tmp_path):
    require_onnx()
    opts = ("MODEL.RETINANET.TOPK_CANDIDATES_TEST", 3, "TEST.DETECTIONS_PER_IMAGE", 40)
    folder = export_run(exports.run, tmp_path / "out", opts, pictures=exports.pictures)
    outputs = outputs_of(session_of(folder), pixels(2, 64, 64))
    assert outputs["boxes"].shape == (2, 40, 4)
    assert (outputs["count"] > 0).all() and (outputs["count"] <= 15).all()


def test_a_picture_without_objects_has_none_and_a_full_one_as_many_as_wanted(exports, tmp_path):
    require_onnx()
    full = export_run(
        exports.run,
        tmp_path / "full",
        ("TEST.DETECTIONS_PER_IMAGE", 4),
        pictures=exports.pictures,
    )
    outputs = outputs_of(session_of(full), pixels(3, 96, 96))
    assert outputs["count"].tolist() == [4, 4, 4]
    empty = export_run(
        exports.run,
        tmp_path / "empty",
        ("MODEL.RETINANET.SCORE_THRESH_TEST", 0.9999),
        pictures=exports.pictures,
    )
    outputs = outputs_of(session_of(empty), pixels(3, 96, 96))
    assert outputs["count"].tolist() == [0, 0, 0]
    assert len(Predictor.from_export(empty)(exports.pictures[0])) == 0
    assert torch.is_tensor(Predictor.from_export(empty)(exports.pictures[0]).instances.scores)
