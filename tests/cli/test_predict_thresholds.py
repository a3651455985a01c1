"""``predict --score-thresh`` with thresholds of classes keeps what the evaluation counted."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from retinanet_ext.cli import main
from retinanet_ext.evaluation.predictions import evaluate_predictions
from tests.helpers.predicting import predict
from tests.helpers.tiny import CLASSES

pytestmark = pytest.mark.usefixtures("clean_catalogs")


@pytest.fixture
def measured(run, photos) -> Path:
    """A file of thresholds; beside it the ground truth, and all detections with full precision."""
    records = predict(run, "photos", "--format", "coco")
    rng = np.random.default_rng(0)
    objects = []
    for image, record in enumerate(records, 1):
        for found in record["detections"]:
            x1, y1, x2, y2 = found["box"]
            if rng.random() < 0.4:
                shift = rng.uniform(-0.2, 0.2) * (x2 - x1)
                box = [x1 + shift, y1, x2 - x1, y2 - y1]
                labels = {"id": len(objects) + 1, "image_id": image, "iscrowd": 0}
                area = box[2] * box[3]
                category = found["class_id"] + 1
                objects.append({**labels, "bbox": box, "area": area, "category_id": category})
    images = [
        {"id": i, "file_name": f"{i - 1}.png", "width": x["width"], "height": x["height"]}
        for i, x in enumerate(records, 1)
    ]
    categories = [{"id": i, "name": name} for i, name in enumerate(CLASSES, 1)]
    content = {"images": images, "annotations": objects, "categories": categories}
    Path("val.json").write_text(json.dumps(content))
    results = "out/coco_instances_results.json"
    words = ["--predictions", results, "--annotations", "val.json", "--thresholds", "t.yaml"]
    assert main(["evaluate", *words]) == 0
    return Path("t.yaml").resolve()


def test_precision_and_recall_are_those_of_the_evaluation(run, measured):
    expected = yaml.safe_load(measured.read_text())["classes"]
    every = json.loads(Path("out/coco_instances_results.json").read_text())
    predict(run, "photos", "--format", "coco,csv", "--score-thresh", measured, "--overwrite")
    kept = json.loads(Path("out/coco_instances_results.json").read_text())
    assert 0 < len(kept) < len(every)
    found = evaluate_predictions("out/coco_instances_results.json", "val.json").analysis
    for k, name in enumerate(CLASSES):
        row, right = expected[name], found.assignment.right
        of_class = found.assignment.tables.detections.label == k
        true_positives = int((right & of_class).sum())
        assert true_positives > 0
        precision = true_positives / int(of_class.sum())
        recall = true_positives / row["n_gt"]
        assert precision == pytest.approx(row["precision"], abs=1e-12)
        assert recall == pytest.approx(row["recall"], abs=1e-12)
    rows = Path("out/predictions.csv").read_text().splitlines()[1:]
    assert sum(not row.endswith(",,,") for row in rows) == len(kept)


def test_drawings_and_the_summary_have_them_too(run, measured, capsys):
    none, some = dict.fromkeys(CLASSES, 1.0), dict.fromkeys(CLASSES, 1.0)
    some["WBC"] = 0.05
    for number, of_class in enumerate((none, some)):
        measured.write_text(yaml.safe_dump({"classes": of_class}))
        words = ["--draw", "--overwrite", "--score-thresh", measured]
        records = predict(run, "photos", *words)
        wbc = sum(d["class"] == "WBC" for x in records for d in x["detections"])
        assert wbc < sum(len(x["detections"]) for x in records)
        said = f"{wbc if number else 0} detections with a score from "
        assert said in capsys.readouterr().out
        drawn = np.asarray(Image.open("out/drawn/0.jpg")).astype(int)
        changed = np.abs(drawn - np.asarray(Image.open("photos/0.png")).astype(int)).max() > 100
        assert changed == bool(number)


def test_auto_is_the_file_of_the_run(run, measured, tmp_path, capsys):
    own = tmp_path / "own"
    own.mkdir()
    for name in ("config.yaml", "model_final.pth"):
        (own / name).symlink_to(run / name)
    assert main(["predict", str(own), "photos", "--output", "x", "--score-thresh", "auto"]) == 2
    said = capsys.readouterr().err
    assert "thresholds.yaml" in said and "retinanet-ext report " in said
    (own / "inference" / "set").mkdir(parents=True)
    (own / "inference" / "set" / "thresholds.yaml").write_text(measured.read_text())
    by_name = predict(run, "photos", "--format", "json", "--score-thresh", measured, "--overwrite")
    by_name = json.loads(Path("out/predictions.json").read_text())
    predict(own, "photos", "--format", "json", "--score-thresh", "auto", "--overwrite")
    found = json.loads(Path("out/predictions.json").read_text())
    assert [x["detections"] for x in found] == [x["detections"] for x in by_name]
    (own / "inference" / "thresholds.yaml").write_text(measured.read_text())
    assert main(["predict", str(own), "photos", "--output", "x", "--score-thresh", "auto"]) == 2
    assert "name one of them" in capsys.readouterr().err


def test_resuming_with_other_thresholds_is_refused(run, measured, capsys):
    predict(run, "photos", "--score-thresh", measured, "--overwrite")
    content = yaml.safe_load(measured.read_text())
    content["classes"]["WBC"]["threshold"] = 0.9
    measured.write_text(yaml.safe_dump(content))
    words = ["predict", str(run), "photos", "--output", "out", "--resume"]
    assert main([*words, "--score-thresh", str(measured)]) == 2
    assert "other settings (score-thresh)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("none.yaml", "neither a number from 0 to 1, nor auto, nor a file"),
        ("other.yaml", "other classes than the model's"),
        ("broken.yaml", "no file of thresholds"),
    ],
)
def test_a_file_that_does_not_fit_is_named(run, photos, capsys, given, says):
    Path("other.yaml").write_text("classes: {cat: 0.5}")
    Path("broken.yaml").write_text("3")
    words = ["predict", str(run), "photos", "--output", "out", "--score-thresh", given]
    assert main(words) == 2
    assert says in capsys.readouterr().err


def test_thresholds_of_other_weights_are_said(run, photos, capsys):
    of_class = "".join(f"  {name}: 0.3\n" for name in CLASSES)
    Path("t.yaml").write_text(f"weights_sha256: {'0' * 64}\nclasses:\n{of_class}")
    predict(run, "photos", "--score-thresh", "t.yaml")
    assert "measured with other weights" in capsys.readouterr().out


def test_a_run_named_by_its_config_has_no_folder_to_look_into(run, photos, capsys):
    words = ["--config-file", run / "config.yaml", "--weights", run / "model_final.pth"]
    assert main(["predict", *map(str, words), "photos", "--score-thresh", "auto"]) == 2
    assert (
        main(["predict", *map(str, words), "photos", "--output", "x", "--score-thresh", "auto"])
        == 2
    )
    assert "name the file instead" in capsys.readouterr().err
