"""The demo model that comes with the package: small, and it finds what it is for."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from detectron2.modeling import build_model
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from retinanet_ext import Predictor, get_cfg, load_config_file
from retinanet_ext.cli import main
from retinanet_ext.data.quickstart.dataset import (
    CLASS_NAMES,
    EMPTY_EVERY,
    ensure_quickstart,
    render_scene,
)
from retinanet_ext.engine.checkpoint.checkpointer import SafeCheckpointer
from retinanet_ext.errors import ConfigError
from retinanet_ext.inference.run_folder import find_run
from retinanet_ext.weights.demo import DEMO_FILE, DEMO_FOLDER, DEMO_WEIGHTS, has_demo
from tests.helpers.run_folder import write_run

pytestmark = pytest.mark.usefixtures("clean_catalogs")

FLOOR = 70.0  # AP


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty current folder."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def demo() -> Predictor:
    return Predictor.from_run("demo", device="cpu")


def test_the_file_is_small_and_the_folder_has_a_notice():
    assert has_demo()
    assert (DEMO_FOLDER / DEMO_FILE).stat().st_size < 5_000_000
    assert "Apache" in (DEMO_FOLDER / "NOTICE").read_text()


def test_it_finds_the_objects_of_scenes_that_it_has_not_seen(capsys):
    scenes = ensure_quickstart("data", num_train=1, num_val=12, seed=5)
    annotations = scenes / "annotations" / "instances_val.json"
    words = ["--format", "coco", "--annotations", str(annotations), "--score-thresh", "0.05"]
    command = ["predict", "demo", str(scenes / "val"), "--output", "found", *words, "--quiet"]
    assert main([*command, "--device", "cpu"]) == 0
    truth = COCO(str(annotations))
    assert len(truth.anns) > 50
    scores = COCOeval(truth, truth.loadRes("found/coco_instances_results.json"), "bbox")
    scores.evaluate()
    scores.accumulate()
    scores.summarize()
    assert 100 * scores.stats[0] > FLOOR


def test_python_has_it_by_its_name(demo):
    assert demo.class_names == list(CLASS_NAMES)
    assert str(DEMO_FOLDER / DEMO_FILE) == demo.cfg.MODEL.WEIGHTS


def test_it_finds_nothing_where_nothing_is(demo):
    scene = render_scene("val", EMPTY_EVERY - 1, seed=5)
    assert not len(scene.boxes)
    assert (demo(scene.image, channels="RGB").scores > 0.5).sum() <= 1


def test_predict_demo_needs_no_other_word(capsys):
    for _ in range(2):  # its own results are replaced
        assert main(["predict", "demo"]) == 0
    output = Path("output", "demo")
    lines = [json.loads(x) for x in (output / "predictions.jsonl").read_text().splitlines()]
    assert len(lines) == 6 and sum(len(x["detections"]) for x in lines) > 10
    assert {x["file"] for x in lines} == {str(x) for x in (output / "pictures").iterdir()}
    drawn = sorted((output / "drawn").iterdir())
    assert len(drawn) == 6 and Image.open(drawn[0]).size[1] == 256
    assert capsys.readouterr().out.splitlines()[-1].endswith(str(output / "drawn"))


def test_pictures_of_ones_own_need_an_output_as_ever(capsys):
    Image.new("RGB", (80, 64), "gray").save("photo.jpg")
    assert main(["predict", "demo", "photo.jpg"]) == 2
    assert "--output is missing" in capsys.readouterr().err
    assert main(["predict", "demo", "photo.jpg", "--output", "found"]) == 0
    assert not Path("found", "drawn").exists()


def test_a_training_of_that_name_comes_first(capsys):
    assert find_run("demo") == str(DEMO_FOLDER)
    Path("demo").mkdir()  # no training
    assert find_run("demo") == str(DEMO_FOLDER)
    shutil.rmtree("demo")
    write_run(Path("demo"))
    assert find_run("demo") == "demo"
    assert main(["predict", "demo"]) == 2
    assert "SOURCE is missing" in capsys.readouterr().err


def test_nothing_but_the_classes_is_new_in_another_training(demo):
    cfg = get_cfg()
    load_config_file(cfg, "quickstart_lite0.yaml")
    cfg.MODEL.DEVICE, cfg.MODEL.RETINANET.NUM_CLASSES = "cpu", 3
    model = build_model(cfg)
    checkpointer = SafeCheckpointer(model, thing_classes=["star", "cell", "moon"])
    checkpointer.load(DEMO_WEIGHTS)
    theirs, ours = demo.model.state_dict(), model.state_dict()
    differ = {k for k, v in ours.items() if not (v.shape == theirs[k].shape and v.equal(theirs[k]))}
    assert differ == {"head.cls_score.weight", "head.cls_score.bias"}
    rows = ours["head.cls_score.weight"].unflatten(0, (-1, 3))[:, 0]
    known = theirs["head.cls_score.weight"].unflatten(0, (-1, len(CLASS_NAMES)))
    assert rows.equal(known[:, CLASS_NAMES.index("star")])


def test_as_a_start_it_wants_its_pixels():
    cfg = get_cfg()
    load_config_file(cfg, "quickstart_lite0.yaml")
    cfg.MODEL.DEVICE, cfg.INPUT.FORMAT = "cpu", "BGR"
    with pytest.raises(ConfigError, match=r"INPUT\.FORMAT"):
        SafeCheckpointer(build_model(cfg)).load(DEMO_WEIGHTS)
