"""An exported file in the place of a run: the same detections, or a sentence why not."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from retinanet_ext import Predictor
from retinanet_ext.errors import ConfigError, InputError, MissingFileError, MissingPackageError
from retinanet_ext.export.compare import compare_sets
from retinanet_ext.inference.exported import cfg_of_export, engines, is_export, model
from tests.helpers.predicting import write_photos
from tests.helpers.tiny import CLASSES

pytestmark = pytest.mark.usefixtures("clean_catalogs")

MODULE = "retinanet_ext.inference.exported.precision"
HEADS = pytest.mark.parametrize("head", ["raw", "decoded", "nms"])


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> list[str]:
    return sorted(map(str, write_photos(tmp_path_factory.mktemp("photos") / "in").iterdir()))


def found_by(predictor: Predictor, photos: list[str], batch_size: int = 3) -> list:
    return [x.instances for x in predictor.stream(photos, batch_size)]


def assert_same(expected: list, got: list, edge: float = 0.05) -> None:
    found = compare_sets(expected, got, edge=edge, most=100)
    assert found.count > 20 and found.missing == 0


@HEADS
def test_it_finds_what_the_run_finds(exports, photos, head):
    predictor = Predictor.from_export(exports(head))
    assert predictor.class_names == list(CLASSES)
    assert_same(found_by(Predictor.from_run(exports.run), photos), found_by(predictor, photos))


@HEADS
def test_a_file_and_its_folder_are_one(exports, head):
    folder = exports(head)
    assert is_export(folder) and is_export(folder / "model.onnx")
    assert not is_export(exports.run) and not is_export(folder / "golden.npz")
    cfg = cfg_of_export(folder)
    assert cfg.MODEL.WEIGHTS == cfg_of_export(folder / "model.onnx").MODEL.WEIGHTS
    assert len(CLASSES) == cfg.MODEL.RETINANET.NUM_CLASSES


@HEADS
def test_a_batch_gives_what_each_picture_gives(exports, photos, head):
    predictor = Predictor.from_export(exports(head))
    assert_same(found_by(predictor, photos, 1), found_by(predictor, photos, 4))


@HEADS
def test_a_higher_threshold_and_fewer_detections_are_always_possible(exports, photos, head):
    settings = {"score_thresh": 0.2, "opts": ["TEST.DETECTIONS_PER_IMAGE", 5]}
    expected = found_by(Predictor.from_run(exports.run, **settings), photos)
    got = found_by(Predictor.from_export(exports(head), **settings), photos)
    assert [len(x) for x in got] == [len(x) for x in expected]
    assert_same(expected, got, edge=0.2)


def test_what_is_done_after_the_file_can_be_changed(exports, photos):
    node = "MODEL.RETINANET"
    for head, opts in (
        ("decoded", [f"{node}.NMS_THRESH_TEST", 0.2]),
        ("decoded", [f"{node}.NMS_KIND", "soft"]),
        ("raw", [f"{node}.TOPK_CANDIDATES_TEST", 9, f"{node}.SCORE_THRESH_TEST", 0.01]),
    ):
        expected = found_by(Predictor.from_run(exports.run, opts=opts), photos)
        got = found_by(Predictor.from_export(exports(head), opts=opts), photos)
        assert_same(expected, got, edge=0.01)


@pytest.mark.parametrize(
    ("head", "key", "value"),
    [
        ("nms", "MODEL.RETINANET.NMS_THRESH_TEST", 0.4),
        ("nms", "MODEL.RETINANET.NMS_KIND", "soft"),
        ("nms", "MODEL.RETINANET.SCORE_THRESH_TEST", 0.01),
        ("nms", "TEST.DETECTIONS_PER_IMAGE", 101),
        ("decoded", "MODEL.RETINANET.SCORE_THRESH_TEST", 0.01),
        ("decoded", "MODEL.RETINANET.TOPK_CANDIDATES_TEST", 10),
        ("raw", "INPUT.FORMAT", "RGB"),
        ("raw", "MODEL.PIXEL_MEAN", [1.0, 2.0, 3.0]),
    ],
)
def test_what_the_file_holds_cannot_be_changed(exports, head, key, value):
    with pytest.raises(InputError, match=rf"{key} is .*can only be .*--head {head}"):
        Predictor.from_export(exports(head), opts=[key, value])


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_an_onnx_file_keeps_its_precision(exports, precision):
    with pytest.raises(InputError, match=f"AUTOCAST is {precision}.* leave --precision out"):
        Predictor.from_export(exports("raw"), opts=["MODEL.SPEEDUPS.AUTOCAST", precision])


def test_autocast_auto_leaves_an_onnx_file_its_precision(exports, photos, monkeypatch, capsys):
    monkeypatch.setattr(f"{MODULE}.best_autocast", lambda device: "bfloat16")
    predictor = Predictor.from_export(exports("raw"), opts=["MODEL.SPEEDUPS.AUTOCAST", "auto"])
    assert "in the precision of the exported file (AUTOCAST auto)" in capsys.readouterr().out
    assert_same(found_by(Predictor.from_run(exports.run), photos), found_by(predictor, photos))


@pytest.mark.parametrize(("flags", "hint"), [("bfloat16", "bf16"), ("", "f32")])
def test_openvino_computes_in_bfloat16_where_the_cpu_does(exports, monkeypatch, flags, hint):
    folder = exports("raw", "openvino")
    monkeypatch.setattr(f"{MODULE}.best_autocast", lambda device: flags)
    asked: list[str] = []
    compile_model = engines.require("openvino", "openvino").Core.compile_model

    def compile(self, model, device, config):
        asked.append(config["INFERENCE_PRECISION_HINT"])
        return compile_model(self, model, device, config)

    monkeypatch.setattr("openvino.Core.compile_model", compile)
    predictor = Predictor.from_export(folder, opts=["MODEL.SPEEDUPS.AUTOCAST", "auto"])
    assert asked == [hint] and flags == predictor.cfg.MODEL.SPEEDUPS.AUTOCAST


def test_an_unknown_key_is_named(exports):
    with pytest.raises(ConfigError, match="NMS_TRESH"):
        Predictor.from_export(exports("raw"), opts=["MODEL.RETINANET.NMS_TRESH", 1])


@pytest.mark.parametrize("head", ["raw", "decoded"])
def test_tiles_work_as_with_the_run(exports, head):
    photos = exports.pictures
    opts = ["TEST.TILES.SIZE", (128, 128), "TEST.TILES.OVERLAP", 0.25]
    expected = found_by(Predictor.from_run(exports.run, opts=opts), photos)
    got = found_by(Predictor.from_export(exports(head), opts=opts), photos)
    assert_same(expected, got)


def test_tiles_are_refused_after_nms(exports):
    with pytest.raises(InputError, match="--head decoded or raw"):
        Predictor.from_export(exports("nms"), opts=["TEST.TILES.SIZE", (128, 128)])


def test_a_changed_sidecar_is_refused(exports, tmp_path):
    folder = exports.copy(tmp_path)
    path = folder / "model.json"
    path.write_text(path.read_text().replace('"BGR"', '"RGB"'))
    with pytest.raises(InputError, match="was changed after the export"):
        Predictor.from_export(folder)


def test_another_file_under_its_name_is_refused(exports, tmp_path):
    folder = exports.copy(tmp_path)
    shutil.copy(exports("raw") / "model.onnx", folder / "model.onnx")
    with pytest.raises(InputError, match=r"is not the file that model\.json beside it"):
        Predictor.from_export(folder)


def test_missing_parts_are_named(exports, tmp_path):
    folder = exports.copy(tmp_path)
    (folder / "model.onnx").rename(folder / "model.onnx.rejected")
    with pytest.raises(MissingFileError, match="verification failed"):
        Predictor.from_export(folder)
    (tmp_path / "alone").mkdir()
    shutil.copy(folder / "model.onnx.rejected", tmp_path / "alone" / "model.onnx")
    with pytest.raises(MissingFileError, match=r"has no model\.json beside it"):
        Predictor.from_export(tmp_path / "alone" / "model.onnx")


@pytest.mark.parametrize("text", ["{", "[]", '{"format": "other"}', "null"])
def test_a_json_of_something_else_is_refused(exports, tmp_path, text):
    folder = exports.copy(tmp_path)
    (folder / "model.json").write_text(text)
    with pytest.raises(InputError, match=r"is not the model\.json of an export"):
        Predictor.from_export(folder)


def test_a_later_version_is_refused(exports, tmp_path):
    folder = exports.copy(tmp_path)
    meta = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps({**meta, "version": 99}))
    with pytest.raises(InputError, match="version 99, and this package reads version 1"):
        Predictor.from_export(folder)


def test_a_missing_runtime_is_named_with_its_extra(exports, monkeypatch):
    folder = exports("nms")
    import_module = engines.importlib.import_module

    def absent(name: str):
        if name == "onnxruntime":
            raise ModuleNotFoundError("No module named 'onnxruntime'", name=name)
        return import_module(name)

    monkeypatch.setattr(engines.importlib, "import_module", absent)
    with pytest.raises(MissingPackageError, match=r"retinanet_ext\[onnx\]"):
        Predictor.from_export(folder)


def test_a_provider_that_is_not_there_is_no_silent_cpu(exports):
    sidecar = engines.Sidecar.read(exports("nms"))
    with pytest.raises(InputError, match="CUDAExecutionProvider"):
        engines.open_engine(sidecar, "cuda")


@pytest.mark.parametrize("head", ["decoded", "raw"])
def test_little_after_the_engine_is_not_split_between_threads(exports, photos, head, monkeypatch):
    predictor = Predictor.from_export(exports(head))
    expected = predictor(photos[0])
    decoder, threads = predictor.model.decoder, []
    suppress = decoder.suppress
    monkeypatch.setattr(
        decoder, "suppress", lambda x: threads.append(torch.get_num_threads()) or suppress(x)
    )
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        for small in (2**60, 0):
            monkeypatch.setattr(model, "SMALL", small)
            np.testing.assert_array_equal(predictor(photos[0]).boxes, expected.boxes)
    finally:
        torch.set_num_threads(before)
    assert threads == [1, 2]


def test_threads_may_share_it(exports, photos):
    import concurrent.futures

    predictor = Predictor.from_export(exports("nms"))
    expected = [predictor(path).boxes for path in photos]
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        got = list(pool.map(lambda path: predictor(path).boxes, photos * 3))
    for i, boxes in enumerate(got):
        np.testing.assert_array_equal(boxes, expected[i % len(photos)])


def test_paths_of_data_sets_do_not_leave_the_machine(exports):
    text = Path(exports("nms"), "model.json").read_text()
    assert str(exports.folder) not in text and "/" not in json.loads(text)["datasets"]
