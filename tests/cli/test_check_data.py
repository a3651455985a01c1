"""``retinanet-ext check-data``: exit status, table, json, cleaned copy, refusals."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
import yaml
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BoxMode

from retinanet_ext import get_cfg
from retinanet_ext.anchor_tools.levels import anchor_levels
from retinanet_ext.cli import main
from retinanet_ext.data import register_coco_dataset
from retinanet_ext.data.doctor import CODES
from tests.helpers.broken import good_content, write

pytestmark = pytest.mark.usefixtures("clean_catalogs")


def spec(tmp_path: Path, content=None, name: str = "train") -> str:
    json_file, image_root = write(tmp_path, content or good_content(), name)
    return f"{json_file}:{image_root}"


def check(*words: str) -> int:
    return main(["check-data", *words])


def broken_content() -> dict:
    content = good_content()
    content["annotations"][0]["bbox"] = [30, 20, 0, 12]
    return content


def test_clean_data_exit_with_0(tmp_path, capsys):
    words = ("--train", spec(tmp_path), "--val", spec(tmp_path, name="val"), "--images")
    assert check(*words) == 0
    out = capsys.readouterr().out
    assert "Nothing found." in out and "cat" in out and "800 x 1333" in out
    assert "no anchor covers 0 of 8 objects" in out


def test_warnings_exit_with_1(tmp_path, capsys):
    content = good_content()
    content["annotations"][0]["bbox"] = [80, 20, 30, 30]
    assert check("--train", spec(tmp_path, content)) == 1
    out = capsys.readouterr().out
    assert "0 errors, 1 warning." in out
    assert "box_over_border" in out and "1.png, annotation 10" in out


def test_errors_exit_with_2(tmp_path, capsys):
    assert check("--train", spec(tmp_path, broken_content())) == 2
    out = capsys.readouterr().out
    assert "box_no_area" in out and f"{tmp_path / 'train' / '1.png'}, annotation 10" in out


def test_many_places_are_cut_short_in_the_table_only(tmp_path, capsys):
    content = good_content()
    for annotation in content["annotations"]:
        annotation["category_id"] = 99
    report = tmp_path / "r.json"
    assert check("--val", spec(tmp_path, content), "--json", str(report)) == 2
    assert "... and 5 more" in capsys.readouterr().out
    listed = json.loads(report.read_text())["findings"]
    assert sum(x["code"] == "unknown_category" for x in listed) == 8


def test_findings_fit_a_screen_and_are_counted_once(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    content = good_content()
    content["categories"] += [{"id": 100 + k, "name": f"kind number {k}"} for k in range(20)]
    for annotation in content["annotations"]:
        annotation["category_id"] = 99
    assert check("--train", spec(tmp_path, content)) == 2
    findings = capsys.readouterr().out.split("error unknown_category")[1]
    assert findings.startswith(" in train, 8 times: ")
    lines = [x for x in findings.splitlines()[1:] if str(tmp_path) not in x]
    assert max(map(len, lines)) <= 80


def test_sizes_say_which_pixels_they_count(tmp_path, capsys):
    assert check("--train", spec(tmp_path)) == 0
    out = capsys.readouterr().out
    assert "pixels of the network's input" in out and "pixels of the image files" in out


def test_json_report_holds_everything(tmp_path):
    report = tmp_path / "r.json"
    assert check("--train", spec(tmp_path, broken_content()), "--json", str(report)) == 2
    content = json.loads(report.read_text())
    assert content["exit_code"] == 2 and content["errors"] == 1 and content["warnings"] == 0
    (finding,) = content["findings"]
    assert finding == {
        "severity": "error",
        "code": "box_no_area",
        "dataset": "train",
        "file": str(tmp_path / "train" / "1.png"),
        "annotation_id": 10,
        "message": "bbox [30, 20, 0, 12] (XYWH) has no area",
    }
    train = content["datasets"]["train"]
    assert train["classes"] == {"cat": 3, "dog": 4} and train["images"] == 4
    assert train["anchors"]["uncovered"] == 0 and train["sizes"]["large"] == 7


def test_leakage_between_train_and_val(tmp_path, capsys):
    train = spec(tmp_path)
    content = copy.deepcopy(good_content())
    assert check("--train", train, "--val", train) == 2
    assert "leakage" in capsys.readouterr().out
    val = spec(tmp_path, content, "val")
    (tmp_path / "val" / "1.png").write_bytes((tmp_path / "train" / "2.png").read_bytes())
    assert check("--train", train, "--val", val) == 0
    assert check("--train", train, "--val", val, "--images") == 2
    out = " ".join(capsys.readouterr().out.split())  # lines are cut at the width of a terminal
    assert f"its pixels are those of {tmp_path / 'val' / '1.png'}" in out


def test_anchors_and_size_come_from_the_config(tmp_path, capsys):
    config = tmp_path / "c.yaml"
    base = {
        "MODEL": {
            "META_ARCHITECTURE": "RetinaNetExt",
            "BACKBONE": {"NAME": "build_retinanet_resnet_fpn_backbone"},
            "RESNETS": {"OUT_FEATURES": ["res3", "res4", "res5"]},
            "FPN": {"IN_FEATURES": ["res3", "res4", "res5"]},
            "ANCHOR_GENERATOR": {"NAME": "RetinaNetAnchorGenerator"},
        },
        "INPUT": {"MIN_SIZE_TRAIN": "(32, 64)", "MAX_SIZE_TRAIN": 500},
    }
    config.write_text(yaml.safe_dump(base))
    words = ("--train", spec(tmp_path), "--config-file", str(config))
    assert check(*words) == 1
    out = capsys.readouterr().out
    assert "48 x 500" in out and "uncovered_objects" in out
    base["MODEL"]["ANCHOR_GENERATOR"]["OCTAVE_BASE_SIZES"] = [16.0, 32.0, 64.0, 128.0, 256.0]
    config.write_text(yaml.safe_dump(base))
    assert check(*words) == 0


def test_anchor_levels_are_those_of_the_generator():
    cfg = get_cfg()
    cfg.MODEL.BACKBONE.NAME = "build_retinanet_resnet_fpn_backbone"
    cfg.MODEL.RESNETS.OUT_FEATURES = cfg.MODEL.FPN.IN_FEATURES = ["res3", "res4", "res5"]
    cfg.MODEL.ANCHOR_GENERATOR.NAME = "RetinaNetAnchorGenerator"
    cfg.MODEL.ANCHOR_GENERATOR.OFFSET = 0.25
    levels, divisor = anchor_levels(cfg)
    assert [x.stride for x in levels] == [8, 16, 32, 64, 128] and divisor == 32
    assert {x.offset for x in levels} == {0.25} and {x.cells.shape for x in levels} == {(9, 4)}
    assert (levels[0].cells[0, 2:] - levels[0].cells[0, :2]).prod() == pytest.approx(32**2)


def test_registered_coco_dataset_is_read_with_its_faults(tmp_path, capsys):
    # Detectron2's own reader would raise at the repeated id.
    content = good_content()
    content["annotations"][0]["id"] = 21
    json_file, image_root = write(tmp_path, content)
    register_coco_dataset("check_data_pets", json_file, image_root)
    assert check("--train", "check_data_pets") == 2
    assert "duplicate_annotation_id" in capsys.readouterr().out


def test_registered_dicts_are_checked_and_fixed(tmp_path, capsys):
    _, image_root = write(tmp_path, good_content())
    boxes = [
        {"bbox": box, "bbox_mode": BoxMode.XYXY_ABS, "category_id": 0}
        for box in ([4, 6, 34, 30], [50, 20, 30, 40])
    ]
    record = {"file_name": str(image_root / "1.png"), "width": 96, "height": 64}
    DatasetCatalog.register("check_data_dicts", lambda: [{**record, "annotations": boxes}])
    MetadataCatalog.get("check_data_dicts").thing_classes = ["cat"]
    out = tmp_path / "fixed.json"
    assert check("--train", "check_data_dicts", "--fix", str(out)) == 2
    assert "box_inverted" in capsys.readouterr().out
    assert check("--train", f"{out}:{image_root}") == 0


def test_datasets_of_the_config_are_taken_without_names(tmp_path, capsys):
    json_file, image_root = write(tmp_path, broken_content())
    register_coco_dataset("check_data_val", json_file, image_root)
    config = tmp_path / "c.yaml"
    model = {
        "BACKBONE": {"NAME": "build_retinanet_resnet_fpn_backbone"},
        "RESNETS": {"OUT_FEATURES": ["res3", "res4", "res5"]},
        "FPN": {"IN_FEATURES": ["res3", "res4", "res5"]},
    }
    config.write_text(yaml.safe_dump({"MODEL": model, "DATASETS": {"TEST": "('check_data_val',)"}}))
    assert check("--config-file", str(config)) == 2
    out = capsys.readouterr().out
    assert "val " in out and "box_no_area" in out


def test_fix_writes_a_clean_copy_and_the_changes(tmp_path, capsys):
    train = spec(tmp_path, broken_content())
    original = (tmp_path / "train.json").read_bytes()
    out = tmp_path / "fixed.json"
    assert check("--train", train, "--fix", str(out)) == 2
    assert (tmp_path / "train.json").read_bytes() == original
    (change,) = json.loads((tmp_path / "fixed.changes.json").read_text())
    assert change["code"] == "box_no_area" and change["annotation_id"] == 10
    assert change["change"] == "annotation removed" and change["file"].endswith("1.png")
    assert "1 change " in capsys.readouterr().out
    assert check("--train", f"{out}:{tmp_path / 'train'}", "--images") == 0
    assert not list(tmp_path.glob("*.part"))


def test_fix_overwrites_only_by_force_and_never_the_original(tmp_path, capsys):
    train = spec(tmp_path, broken_content())
    original = (tmp_path / "train.json").read_bytes()
    out = tmp_path / "fixed.json"
    out.write_text("mine")
    assert check("--train", train, "--fix", str(out)) == 2
    assert out.read_text() == "mine" and "--force" in capsys.readouterr().err
    assert check("--train", train, "--fix", str(tmp_path / "train.json"), "--force") == 2
    assert "never changed" in capsys.readouterr().err
    assert (tmp_path / "train.json").read_bytes() == original
    assert check("--train", train, "--fix", str(out), "--force") == 2
    assert len(json.loads(out.read_text())["annotations"]) == 7


@pytest.mark.parametrize(
    "words,named",
    [
        ((), "--train, --val or --config-file"),
        (("--train", "no.json"), "no.json"),
        (("--train", "{json}:/no/folder"), "/no/folder"),
        (("--train", "{json}", "--fix", "out.txt"), "out.txt"),
        (("--train", "{json}", "--json", "/no/folder/r.json"), "/no/folder"),
        (("--config-file", "no.yaml"), "no.yaml"),
        (("--train", "quickstart_trian"), "quickstart_train"),
    ],
)
def test_mistakes_are_one_line_and_not_the_status_of_warnings(tmp_path, capsys, words, named):
    json_file, _ = write(tmp_path, good_content())
    assert check(*(x.replace("{json}", str(json_file)) for x in words)) == 2
    error = capsys.readouterr().err
    assert named in error and len(error.strip().splitlines()) == 1


def test_every_code_has_a_test():
    folder = Path(__file__).resolve().parents[1] / "data" / "doctor"
    text = "".join(x.read_text() for x in folder.glob("test_*.py"))
    assert [code for code in CODES if f'"{code}"' not in text] == []
