"""``retinanet-ext evaluate --predictions``: an evaluation of a file, without a model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from retinanet_ext.cli import main
from retinanet_ext.evaluation.analysis import assign
from retinanet_ext.evaluation.analysis.thresholds import read_thresholds
from tests.helpers.coco_results import as_results, official, tables_of
from tests.helpers.coco_scenes import (
    CLASSES,
    noisy_predictions,
    random_ground_truth,
    register_json,
    score,
)

HOSTILE = ["</script><img src=x onerror=alert(1)>", "\x1b[31mred\x07", "a\nb", "x" * 300, "\ud800"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current one."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def scene(seed: int = 0, classes: tuple[str, ...] = CLASSES) -> tuple[dict, dict]:
    rng = np.random.default_rng(seed)
    truth = random_ground_truth(rng, classes=classes)
    return truth, noisy_predictions(rng, truth, noise=0.08)


def lay_out(truth: dict[str, Any], results: list[dict[str, Any]]) -> list[str]:
    """Write both files; the words that name them."""
    Path("val.json").write_text(json.dumps(truth))
    Path("found.json").write_text(json.dumps(results))
    return ["evaluate", "--predictions", "found.json", "--annotations", "val.json"]


def test_it_prints_and_writes_what_the_evaluator_says(folder, clean_catalogs, capsys):
    truth, predictions = scene()
    words = lay_out(truth, as_results(predictions))
    assert main([*words, "--json", "all.json"]) == 0
    printed = capsys.readouterr().out
    metrics = score(register_json(folder, truth), predictions)
    written = json.loads(Path("all.json").read_text())
    for name in ("AP", "AP50", "AP75", "APl", "AR100", "AP50any"):
        assert written["summary"][name] == pytest.approx(metrics[name], abs=0.01)  # boxes float32
        assert f"{written['summary'][name]:.2f}" in printed
    for name in CLASSES:
        assert written["classes"][name]["AP"] == pytest.approx(metrics[f"AP-{name}"], abs=0.01)
        assert any(line.startswith(name) for line in printed.splitlines())
    theirs = official(truth, as_results(predictions)).eval["precision"][..., 0, 0]
    assert written["summary"]["AP"] == pytest.approx(theirs.mean() * 100, abs=1e-9)
    assert written["summary"]["AP50"] == pytest.approx(theirs[0].mean() * 100, abs=1e-9)


def test_the_json_has_every_number(folder):
    truth, predictions = scene()
    words = lay_out(truth, as_results(predictions))
    assert main([*words, "--json", "all.json", "--iou", "0.6"]) == 0
    content = json.loads(Path("all.json").read_text())
    assert content["settings"]["iou"] == 0.6 and content["settings"]["images"] == 40
    assert set(content["errors"]) == {"Cls", "Loc", "Both", "Dupe", "Bkg", "Miss", "FP", "FN"}
    keys = {"AP", "AP50", "AP75", "f1", "threshold", "precision", "recall", "n"}
    assert all(keys <= set(content["classes"][name]) for name in CLASSES)
    matrix = np.array(content["confusion"]["matrix"])
    assert content["confusion"]["labels"] == [*CLASSES, "background"]
    assert matrix.shape == (5, 5) and len(content["confusion"]["thresholds"]) == 4
    found = assign(tables_of(truth, as_results(predictions)), 0.6)
    for k, name in enumerate(CLASSES):
        row = content["classes"][name]
        assert matrix[k].sum() == row["n"] == found.tables.num_objects[k]
        assert matrix[k, k] == pytest.approx(row["recall"] * row["n"], abs=1e-9)
    assert 0 < content["calibration"]["ece"] <= content["calibration"]["mce"] < 1
    assert sum(map(sum, content["recall_by_shape"]["count"])) == found.tables.num_objects.sum()


def test_thresholds_give_the_precision_and_recall_that_stand_beside_them(folder):
    truth, predictions = scene()
    words = lay_out(truth, as_results(predictions))
    assert main([*words, "--thresholds", "t.yaml", "--json", "all.json"]) == 0
    thresholds = read_thresholds("t.yaml")
    classes = json.loads(Path("all.json").read_text())["classes"]
    found = assign(tables_of(truth, as_results(predictions)))
    detections = found.tables.detections
    for k, name in enumerate(CLASSES):
        shown = (detections.label == k) & (detections.score >= thresholds.of_class[name])
        right, wrong = (found.right & shown).sum(), (found.wrong & shown).sum()
        assert classes[name]["precision"] == pytest.approx(right / (right + wrong), abs=1e-12)
        assert classes[name]["recall"] == pytest.approx(
            right / found.tables.num_objects[k], abs=1e-12
        )


def test_names_of_a_file_reach_neither_terminal_nor_json_unescaped(folder, capsys):
    truth, predictions = scene(classes=tuple(HOSTILE))
    words = lay_out(truth, as_results(predictions))
    assert main([*words, "--json", "all.json", "--thresholds", "t.yaml"]) == 0
    printed = capsys.readouterr().out
    assert all(x.isprintable() or x == "\n" for x in printed)
    assert "x" * 50 not in printed and "\nb " not in printed
    assert set(json.loads(Path("all.json").read_text())["classes"]) == set(HOSTILE)
    assert set(read_thresholds("t.yaml").of_class) == set(HOSTILE)


def test_classes_of_one_name_stay_two(folder):
    truth, predictions = scene(classes=("cat", "dog", "cat"))
    assert main([*lay_out(truth, as_results(predictions)), "--json", "all.json"]) == 0
    found = json.loads(Path("all.json").read_text())["classes"]
    assert list(found) == ["cat (id 2)", "dog", "cat (id 8)"]


@pytest.mark.slow
def test_ten_thousand_classes(folder, capsys):
    truth, predictions = scene()
    truth["categories"] += [{"id": 100 + i, "name": f"class {i}"} for i in range(9996)]
    words = lay_out(truth, as_results(predictions))
    assert main([*words, "--json", "all.json", "--thresholds", "t.yaml"]) == 0
    printed = capsys.readouterr().out
    assert len(printed.splitlines()) < 100 and "9996 others are in --json" in printed
    content = json.loads(Path("all.json").read_text())
    assert len(content["classes"]) == 10000 and content["confusion"]["matrix"] is None
    assert sum(n for _, _, n in content["confusion"]["cells"]) >= 250
    assert len(read_thresholds("t.yaml").of_class) == 10000
    assert Path("all.json").stat().st_size < 8e6


@pytest.mark.parametrize("which", ["no detections", "no objects", "nothing"])
def test_empty_sets_are_evaluated(which, folder, capsys):
    truth, predictions = scene()
    if which != "no detections":
        truth["annotations"] = []
    words = lay_out(truth, [] if which != "no objects" else as_results(predictions))
    assert main([*words, "--json", "all.json", "--thresholds", "t.yaml"]) == 0
    content = json.loads(Path("all.json").read_text())
    assert content["summary"]["AP"] == 0
    assert "AP and AR are" in capsys.readouterr().out
    if which == "no detections":
        assert content["error_counts"]["Miss"] == content["settings"]["objects"] > 0


@pytest.mark.parametrize(
    "words, said",
    [
        (["--predictions", "found.json"], "needs the ground truth beside it: --annotations"),
        (["--annotations", "val.json"], "give it with --predictions"),
        (["--json", "a.json", "--config-file", "c.yaml"], "--json belongs to a file"),
        (["--predictions", "val.json", "--annotations", "found.json"], "exchanged"),
        (["--predictions", "none.json", "--annotations", "val.json"], "none.json does not exist"),
    ],
)
def test_mistakes_end_with_2_and_one_sentence(words, said, folder, capsys):
    truth, predictions = scene()
    lay_out(truth, as_results(predictions))
    assert main(["evaluate", *words]) == 2
    error = capsys.readouterr().err
    assert said in error and len(error.splitlines()) == 1


@pytest.mark.parametrize(
    "words, said",
    [
        (["--iou", "0"], "must be between 0.1 and 1"),
        (["--iou", "nan"], "must be between 0.1 and 1"),
        (["--json", "val.json"], "which is read; name another file"),
        (["--thresholds", "./found.json"], "which is read; name another file"),
        (["--json", "nowhere/all.json"], "there is no folder for it"),
        (["--val", "val.json"], "--val says how a model is evaluated"),
        (["--resume"], "--resume says how a model is evaluated"),
        (["--dry-run"], "--dry-run says how a model is evaluated"),
    ],
)
def test_options_that_make_no_sense_are_refused_before_anything_is_written(
    words, said, folder, capsys
):
    truth, predictions = scene()
    given = lay_out(truth, as_results(predictions))
    before = {path: path.read_bytes() for path in folder.iterdir()}
    assert main([*given, *words]) == 2
    assert said in capsys.readouterr().err
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_the_limit_on_detections_is_that_of_the_config_or_the_option(folder):
    truth, predictions = scene()
    words = lay_out(truth, as_results(predictions))
    limits = []
    for more in ([], ["TEST.DETECTIONS_PER_IMAGE", "3"], ["--max-dets", "7"]):
        assert main([*words, "--json", "all.json", *more]) == 0
        limits.append(json.loads(Path("all.json").read_text())["settings"]["max_dets"])
    assert limits == [100, 3, 7]
