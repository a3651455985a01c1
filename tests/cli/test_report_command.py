"""``retinanet-ext report``: of a run and of files, and what it says of mistakes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from retinanet_ext.cli import main
from tests.helpers.evaluated_run import write_evaluated_run
from tests.helpers.reports import Page, lay_out, read, scene


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current one."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """What the command says in one sentence."""
    capsys.readouterr()
    assert main(list(words)) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1 and said[0].startswith("retinanet-ext: error: "), said
    assert not Path("report.html").exists()
    return said[0]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "name what the report is about"),
        (["run", "--predictions", "found.json"], "name what the report is about"),
        (["--predictions", "found.json"], "--annotations FILE"),
        (["nothing"], "holds no config.yaml"),
        (["--predictions", "found.json", "--annotations", "gone.json"], "gone.json"),
        (["--predictions", "gone.json", "--annotations", "val.json"], "gone.json"),
        (["--predictions", "found.json", "--annotations", "val.json", "--intersect"], "--compare"),
        (["--predictions", "found.json", "--annotations", "val.json", "--iou", "0"], "--iou is 0"),
        (
            ["--predictions", "found.json", "--annotations", "val.json", "--score-thresh", "2"],
            "between 0 and 1",
        ),
        (
            [
                "--predictions",
                "found.json",
                "--annotations",
                "val.json",
                "--score-thresh",
                "a.yaml",
            ],
            "--score-thresh is 'a.yaml'",
        ),
        (
            ["--predictions", "found.json", "--annotations", "val.json", "--output", "val.json"],
            "which is read",
        ),
        (
            ["--predictions", "found.json", "--annotations", "val.json", "--json", "found.json"],
            "which is read",
        ),
        (
            ["--predictions", "found.json", "--annotations", "val.json", "--output", "val.json/a"],
            "cannot be written",
        ),
        (
            ["--predictions", "found.json", "--annotations", "val.json", "--output", "notes.txt"],
            "--output is 'notes.txt', and the report is a page; name it .html",
        ),
        (["--predictions", "val.json", "--annotations", "val.json"], "holds annotations"),
        (["--predictions", "found.json", "--annotations", "found.json"], "exchanged"),
        (
            ["--predictions", "found.json", "--annotations", "val.json:a:b"],
            "ANNOTATIONS[:IMAGE_DIR]",
        ),
    ],
    ids=lambda x: " ".join(x) if isinstance(x, list) else "",
)
def test_a_mistake_is_one_sentence(words, said, capsys):
    lay_out(*scene())
    assert said in refused(capsys, "report", *words)


def test_thresholds_of_other_classes_are_refused(capsys):
    truth, results = scene()
    words = lay_out(truth, results)
    Path("t.yaml").write_text("classes: {cat: {threshold: 0.5}}\n")
    assert "they lack disc" in refused(capsys, *words, "--score-thresh", "t.yaml")


def run_with(folder: Path, truth: dict[str, Any], results: list[dict[str, Any]]) -> Path:
    """An OUTPUT_DIR as far as a comparison reads it."""
    (folder / "inference").mkdir(parents=True)
    (folder / "inference" / "coco_instances_results.json").write_text(json.dumps(results))
    (folder / "truth.json").write_text(json.dumps(truth))
    row = {"name": "val", "annotations": str(folder / "truth.json"), "sha256": "a" * 64}
    (folder / "run.json").write_text(json.dumps({"datasets": {"test": [row]}}))
    return folder


def test_sets_that_differ_are_compared_only_where_both_have_images(folder, capsys):
    truth, results = scene(num_images=20)
    half = {**truth, "images": [x for x in truth["images"] if x["id"] <= 12]}
    kept = [row for row in results if row["image_id"] <= 12]
    other = run_with(folder / "other", half, kept)
    words = [*lay_out(truth, results), "--bootstrap", "20", "--compare", str(other)]
    said = refused(capsys, *words)
    assert "8 images (13, 14, 15 and 5 more) only here" in said and "--intersect" in said
    assert main([*words, "--intersect"]) == 0
    compared = read()["compare"]
    assert compared["images"] == 12 and compared["with"] == "other"
    assert compared["AP"]["delta"] == 0  # the same detections on the images of both
    assert read()["settings"]["images"] == 20


def test_images_of_one_id_and_another_name_are_not_the_same(folder, capsys):
    truth, results = scene(num_images=6)
    images = [{**x, "file_name": f"other {x['id']}.png"} for x in truth["images"]]
    other = run_with(folder / "other", {**truth, "images": images}, results)
    said = refused(capsys, *lay_out(truth, results), "--compare", str(other), "--intersect")
    assert "no image in common" in said


def test_detections_of_unknown_images_are_refused_in_a_comparison(capsys):
    truth, results = scene()
    words = lay_out(truth, results)
    strange = [{**row, "image_id": row["image_id"] + 30} for row in results]
    Path("other.json").write_text(json.dumps(strange))
    assert "only there" in refused(capsys, *words, "--compare", "other.json")


@pytest.fixture
def run(folder: Path, clean_catalogs: None) -> Path:
    """A run with a tiny model, its test set and the detections of an evaluation."""
    return write_evaluated_run(folder, folder / "output" / "cells")


def test_of_a_run_the_model_is_asked_and_all_lies_beside_the_detections(run, capsys):
    assert main(["report", str(run), "--bootstrap", "10"]) == 0
    said = capsys.readouterr().out
    place = run / "inference"
    content = json.loads((place / "report.json").read_text())
    assert str(place / "report.html") in said and (place / "thresholds.yaml").is_file()
    assert content["missed"]["with_model"] and content["missed"]["total"]
    assert content["recall_grid"]["pixels"] == "network" and content["recall_grid"]["anchor_iou"]
    page = Page(place / "report.html")
    assert page.all("img") and "anchor" in page.text and not page.unclosed
    assert str(run.parent) not in page.source


def test_without_the_model_or_its_weights_there_is_a_report_too(run, folder):
    words = ["--bootstrap", "0", "--output", str(folder / "a" / "page.html")]
    assert main(["report", str(run), "--no-model", *words]) == 0
    content = json.loads((folder / "a" / "report.json").read_text())
    assert not content["missed"]["with_model"]
    (run / "model_final.pth").unlink()
    assert main(["report", str(run), *words]) == 0
    content = json.loads((folder / "a" / "report.json").read_text())
    assert not content["missed"]["with_model"]
    assert any("could not be asked" in text for text in content["missed"]["notes"])
    assert str(folder) not in json.dumps(content)


def test_a_run_is_compared_with_another(run, folder):
    shutil.copytree(run, folder / "output" / "again")
    other = str(folder / "output" / "again")
    assert main(["report", str(run), "--compare", other, "--bootstrap", "10", "--no-model"]) == 0
    compared = json.loads((run / "inference" / "report.json").read_text())["compare"]
    assert compared["with"] == "again" and compared["AP"]["delta"] == 0


def test_a_run_without_detections_says_how_to_get_them(run, capsys):
    shutil.rmtree(run / "inference")
    said = refused(capsys, "report", str(run))
    assert "evaluate it first" in said and "retinanet-ext evaluate" in said


def test_the_report_names_the_files_that_it_wrote_and_nothing_else(folder):
    truth, results = scene()
    words = lay_out(truth, results)
    assert main([*words, "--bootstrap", "0", "--output", "out/page.html"]) == 0
    assert sorted(x.name for x in Path("out").iterdir()) == [
        "page.html",
        "report.json",
        "thresholds.yaml",
    ]
    assert main([*words, "--bootstrap", "0", "--output", "b/p.html", "--score-thresh", "0.5"]) == 0
    assert sorted(x.name for x in Path("b").iterdir()) == ["p.html", "report.json"]
