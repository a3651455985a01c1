"""``retinanet-ext export``, and an exported file wherever a command takes a run."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from retinanet_ext.cli import main
from retinanet_ext.export import job
from retinanet_ext.export.compare import compare_sets
from retinanet_ext.export.files.write import EXPORTERS
from retinanet_ext.inference.exported import engines
from retinanet_ext.serve import DetectionServer
from tests.helpers.exported import require_onnx
from tests.helpers.predicting import predict, without_times
from tests.helpers.run_folder import write_run
from tests.helpers.tiny import CLASSES, write_config

pytestmark = pytest.mark.usefixtures("clean_catalogs")

QUICK = ("--exporter", "torchscript")
ALONE = ("DATALOADER.NUM_WORKERS", "0")


def export(*words: object, expected: int = 0) -> None:
    assert main(["export", *map(str, words)]) == expected


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder's ``run``; of this test only."""
    monkeypatch.chdir(tmp_path)
    return write_run(tmp_path / "run")


def test_a_run_is_exported_beside_its_weights(run, capsys):
    require_onnx()
    export("run", *QUICK)
    folder = run / "export" / "onnx-nms"
    assert (folder / "model.onnx").is_file()
    said = capsys.readouterr().out
    assert re.search(r"model\.onnx: \d+\.\d MB, written in \d+ s", said)
    assert "comparisons with PyTorch" in said and "limit 0.01" in said
    assert json.loads((folder / "parity.json").read_text())["passed"]
    export("run", *QUICK, expected=2)
    assert "--overwrite" in capsys.readouterr().err
    (folder / "mine.txt").touch()
    export("run", *QUICK, "--overwrite", "--opts", "TEST.DETECTIONS_PER_IMAGE", "7")
    meta = json.loads((folder / "model.json").read_text())
    assert meta["decode"]["max_detections"] == 7 and (folder / "mine.txt").exists()


def test_pictures_of_the_test_set_are_compared(run, tiny_root):
    require_onnx()
    export("run", *QUICK, "--data-root", tiny_root, "--output", "out")
    content = json.loads(Path("out/parity.json").read_text())
    assert content["pictures"] == ["001.png", "002.png", "003.png"]
    assert json.loads(Path("out/model.json").read_text())["datasets"] == ["bccd_val"]


def test_a_file_that_differs_ends_with_1_and_another_name(run, monkeypatch, capsys):
    require_onnx()

    class Wrong(job.ExportableRetinaNet):
        def _padded(self, images: torch.Tensor) -> torch.Tensor:
            return super()._padded(images) * 1.01

    monkeypatch.setattr(job, "ExportableRetinaNet", Wrong)
    export("run", *QUICK, "--output", "out", expected=1)
    assert "differs from PyTorch" in capsys.readouterr().err
    assert Path("out/model.onnx.rejected").is_file() and not Path("out/model.onnx").exists()


def test_a_file_that_nobody_has_compared_is_not_loaded(run, capsys):
    require_onnx()
    Path("page.jpg").write_text("<html>404</html>")
    export("run", *QUICK, "--output", "out", "--verify", "page.jpg", expected=2)
    assert "page.jpg' cannot be read as a picture" in capsys.readouterr().err
    assert Path("out/model.onnx.rejected").is_file() and not Path("out/model.onnx").exists()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ((), "neither of MODEL and --config-file"),
        (("run", "--config-file", "x.yaml"), "both of MODEL and --config-file"),
        (("--config-file", "x.yaml"), "needs --weights"),
        (("nowhere",), "'nowhere' is no folder"),
        (("run", "--opset", "11"), "--opset is 11"),
        (("run", "--verify", "no.jpg", "--output", "out"), "--verify names 'no.jpg'"),
        (("run", "--verify", "run/config.yaml", "--output", "out"), "cannot be read as a picture"),
        (("run", "--opts", "MODEL.RETINANET.NMS_KIND", "soft"), "--head decoded or raw"),
        (("run", "--opts", "INPUT.FORMAT", "YUV-BT.601"), "BGR, RGB, L are exported"),
        (("run", "--output", "run/config.yaml"), "a file; name a folder"),
        (("run", "--output", "run"), "which holds config.yaml"),
        (("run", "--size", "9999999x9999999", "--output", "out"), "memory cannot hold; give a"),
    ],
)
def test_mistakes_are_one_sentence(run, capsys, words, says):
    require_onnx()
    export(*words, *(QUICK if "--opts" not in words else ()), expected=2)
    assert says in capsys.readouterr().err


@pytest.mark.parametrize("words", [("--size", "3"), ("--size", "0x4"), ("--batch", "0")])
def test_values_that_are_no_sizes_are_refused(run, capsys, words):
    with pytest.raises(SystemExit) as error:
        export("run", *words)
    assert error.value.code == 2 and "dynamic" in capsys.readouterr().err


def test_missing_packages_are_named_before_anything_is_computed(run, capsys, monkeypatch):
    import_module = engines.importlib.import_module

    def absent(name: str) -> Any:
        if name.partition(".")[0] in ("onnx", "openvino"):
            raise ModuleNotFoundError(f"No module named '{name}'", name=name)
        return import_module(name)

    monkeypatch.setattr(engines.importlib, "import_module", absent)
    monkeypatch.setattr(job, "plain_predictor", lambda cfg: pytest.fail("built"))
    export("run", expected=2)
    assert "pip install 'retinanet_ext[onnx]'" in capsys.readouterr().err
    assert not (run / "export").exists()


def test_a_comparison_of_no_box_is_no_secret(run, capsys):
    require_onnx()
    opts = ["--opts", "MODEL.RETINANET.SCORE_THRESH_TEST", "0.9999"]
    export("run", *QUICK, "--output", "out", *opts)
    assert "so no box was compared" in capsys.readouterr().out


def test_a_part_without_onnx_is_named(run, capsys, monkeypatch):
    require_onnx()

    class Odd(job.ExportableRetinaNet):
        def _padded(self, images: torch.Tensor) -> torch.Tensor:
            return torch.special.bessel_j0(super()._padded(images))

    monkeypatch.setattr(job, "ExportableRetinaNet", Odd)
    export("run", *QUICK, "--output", "out", expected=2)
    assert "PyTorch cannot make ONNX of this model" in capsys.readouterr().err


def test_an_old_torch_needs_the_old_exporter(run, capsys, monkeypatch):
    require_onnx()
    monkeypatch.setattr(torch, "__version__", "2.5.1")
    export("run", "--output", "out", "--exporter", EXPORTERS[0], expected=2)
    assert "--exporter torchscript" in capsys.readouterr().err


def test_more_classes_than_nms_has_room_for(run, capsys):
    require_onnx()
    words = ["run", "--opts", "MODEL.RETINANET.NUM_CLASSES", "1204"]
    # The weights have another number; what cannot be exported is found by the config.
    export(*words, expected=2)
    assert "1204" in capsys.readouterr().err


def test_an_export_is_not_exported_again(exports, capsys):
    export(exports("nms"), expected=2)
    assert "an export; give the run" in capsys.readouterr().err


@pytest.mark.parametrize("head", ["nms", "raw"])
def test_predict_takes_it_in_the_place_of_the_run(exports, photos, head):
    expected = without_times(predict(exports.run, "photos"))
    for place in (exports(head), exports(head) / "model.onnx"):
        found = without_times(predict(place, "photos", "--overwrite"))
        assert [x["file"] for x in found] == [x["file"] for x in expected]
        for ours, theirs in zip(found, expected, strict=True):
            assert len(ours["detections"]) == len(theirs["detections"]) > 10
            left = {_rounded(x) for x in ours["detections"]}
            right = {_rounded(x) for x in theirs["detections"]}
            assert len(left & right) >= 0.9 * len(left)


def _rounded(detection: dict) -> tuple:
    """To a tenth of a pixel: what differs then is on the edge of two tenths."""
    return detection["class"], round(detection["score"], 3), *(round(x) for x in detection["box"])


def test_predict_continues_with_the_same_file_only(exports, photos, capsys):
    predict(exports("nms"), "photos")
    assert len(predict(exports("nms"), "photos", "--resume")) == 4
    assert main(["predict", str(exports("raw")), "photos", "--output", "out", "--resume"]) == 2


def test_predict_refuses_what_the_file_cannot_do(exports, photos, capsys):
    words = ["predict", str(exports("nms")), "photos", "--output", "out"]
    assert main([*words, "--nms-thresh", "0.3"]) == 2
    assert "NMS_THRESH_TEST is 0.3, but can only be 0.5" in capsys.readouterr().err
    assert main([*words, "--weights", "best"]) == 2
    assert "is an export" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("head", ["raw", "nms"])
def test_evaluate_gives_the_ap_of_the_run(exports, tiny_root, tmp_path, monkeypatch, head):
    monkeypatch.chdir(tmp_path)
    folder = exports.copy(tmp_path, head)
    words = ["--data-root", str(tiny_root)]
    assert main(["evaluate", "--model", str(folder), *words, *ALONE]) == 0
    config = ["--config-file", str(exports.run / "config.yaml")]
    weights = ["MODEL.WEIGHTS", str(exports.run / "model_final.pth"), "OUTPUT_DIR", "of_run"]
    assert main(["evaluate", *config, *words, *weights, *ALONE]) == 0
    ours, theirs = (
        json.loads((place / "inference" / "coco_instances_results.json").read_text())
        for place in (folder / "evaluation", tmp_path / "of_run")
    )
    assert len(ours) == len(theirs) > 20
    key = lambda x: (x["image_id"], x["category_id"], round(x["score"], 4), x["bbox"])  # noqa: E731
    for left, right in zip(sorted(ours, key=key), sorted(theirs, key=key), strict=True):
        assert left["score"] == pytest.approx(right["score"], abs=1e-4)


def test_evaluate_needs_the_classes_of_the_file(exports, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    content = {
        "images": [],
        "annotations": [],
        "categories": [{"id": i, "name": name} for i, name in enumerate(reversed(CLASSES), 1)],
    }
    picture = {"id": 1, "file_name": Path(exports.pictures[0]).name, "width": 203, "height": 150}
    box = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 30, 30], "area": 900}
    content |= {"images": [picture], "annotations": [{**box, "iscrowd": 0}]}
    Path("val.json").write_text(json.dumps(content))
    images = str(Path(exports.pictures[0]).parent)
    words = ["evaluate", "--model", str(exports("nms")), "--val", f"val.json:{images}"]
    assert main([*words, "OUTPUT_DIR", "out"]) == 2
    assert "in the same order" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--resume",), "--resume does not go with --model"),
        (("--config-file", "x.yaml"), "--config-file does not go with --model"),
        (("--dry-run",), "--dry-run does not go with --model"),
    ],
)
def test_evaluate_takes_one_model(exports, words, says, capsys):
    assert main(["evaluate", "--model", str(exports("nms")), *words]) == 2
    assert says in capsys.readouterr().err
    assert main(["evaluate", "--model", str(exports.run)]) == 2
    assert "is no exported file" in capsys.readouterr().err


def test_serve_takes_it(exports, monkeypatch):
    used: list[Any] = []
    monkeypatch.setattr(DetectionServer, "use", lambda self, model, name: used.append(model))
    monkeypatch.setattr(DetectionServer, "serve_forever", lambda self: None)
    assert main(["serve", str(exports("nms") / "model.onnx"), "--port", "0"]) == 0
    (predictor,) = used
    assert predictor.class_names == list(CLASSES)
    from retinanet_ext import Predictor

    expected = Predictor.from_run(exports.run)(exports.pictures[0])
    got = predictor(exports.pictures[0])
    assert compare_sets([expected.instances], [got.instances], edge=0.05, most=100).missing == 0


def test_a_config_and_weights_in_place_of_a_run(exports, tmp_path, monkeypatch):
    require_onnx()
    monkeypatch.chdir(tmp_path)
    config = write_config(tmp_path)
    weights = ["--weights", exports.run / "model_final.pth", "--output", "out"]
    export("--config-file", config, *weights, *QUICK, "--head", "raw")
    assert json.loads(Path("out/model.json").read_text())["classes"] == list(CLASSES)
