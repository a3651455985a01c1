"""The numbers of a report: pycocotools', and consistent with each other."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import numpy as np
import pytest

from retinanet_ext.evaluation.analysis.assignment import assign
from retinanet_ext.evaluation.analysis.thresholds import read_thresholds
from tests.helpers.coco_results import official, tables_of
from tests.helpers.coco_scenes import CLASSES
from tests.helpers.reports import Page, report, scene

THRESHOLDS = ["auto", "0", "0.3", "0.5", "0.85", "1"]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current one."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("seed", [0, 1])
def test_ap_and_ar_are_those_of_pycocotools(seed):
    truth, results = scene(seed)
    content = report(truth, results)
    theirs = official(truth, results).eval
    precision, recall = theirs["precision"][..., 0, 0], theirs["recall"][..., 0, 0]
    assert content["summary"]["AP"] == pytest.approx(precision.mean() * 100, abs=1e-9)
    assert content["summary"]["AP50"] == pytest.approx(precision[0].mean() * 100, abs=1e-9)
    assert content["summary"]["AP75"] == pytest.approx(precision[5].mean() * 100, abs=1e-9)
    for k, name in enumerate(CLASSES):
        row = content["classes"][name]
        assert row["AP"] == pytest.approx(precision[:, :, k].mean() * 100, abs=1e-9)
        assert row["AP50"] == pytest.approx(precision[0, :, k].mean() * 100, abs=1e-9)
        assert row["AP75"] == pytest.approx(precision[5, :, k].mean() * 100, abs=1e-9)
        assert row["AR"] == pytest.approx(recall[:, k].mean() * 100, abs=1e-9)


@pytest.mark.parametrize("threshold", THRESHOLDS)
def test_confusion_agrees_with_objects_recall_and_detections(threshold):
    truth, results = scene(3)
    content = report(truth, results, "--score-thresh", threshold)
    matrix = np.array(content["confusion"]["matrix"])
    limits = content["confusion"]["thresholds"]
    tables = tables_of(truth, results)
    assignment = assign(tables)
    detections = tables.detections
    for k, name in enumerate(CLASSES):
        row = content["classes"][name]
        assert (
            matrix[k].sum()
            == row["n"]
            == (~tables.objects.crowd & (tables.objects.label == k)).sum()
        )
        assert matrix[k, k] == pytest.approx(row["recall"] * row["n"], abs=1e-9)
        shown = (detections.label == k) & (detections.score >= limits[k]) & assignment.counted
        ignored = (shown & assignment.ignored).sum()
        assert matrix[:, k].sum() + ignored == shown.sum()
        if row["precision"] is not None:
            assert row["precision"] == pytest.approx(matrix[k, k] / matrix[:, k].sum(), abs=1e-12)
    missed = content["missed"]
    assert missed["total"] == sum(missed["reasons"].values())
    assert missed["total"] == sum(x["n"] for x in content["classes"].values()) - np.trace(matrix)
    grid = content["recall_grid"]
    assert np.sum(grid["count"]) - np.sum(grid["found"]) == missed["total"]
    assert missed["reasons"]["wrong_class"] == matrix[:-1, :-1].sum() - np.trace(matrix)


def test_ground_truth_as_detections_is_without_error_also_in_crowded_images():
    truth, _ = scene(0, num_images=4, num_objects=600, crowd=0.0)
    results = [
        {
            "image_id": a["image_id"],
            "category_id": a["category_id"],
            "bbox": a["bbox"],
            "score": 0.9,
        }
        for a in truth["annotations"]
    ]
    content = report(truth, results, "--max-dets", "600")
    assert content["summary"]["AP"] == pytest.approx(100)
    assert all(value == 0 for value in content["errors"].values())
    assert all(value == 0 for value in content["error_counts"].values())
    matrix = np.array(content["confusion"]["matrix"])
    assert matrix.sum() == np.trace(matrix) == 600
    assert content["missed"]["total"] == 0 and not content["worst"]
    assert "worst" not in Page().ids()


def test_too_small_a_limit_is_named_and_not_taken_for_errors_of_the_detector():
    truth, _ = scene(0, num_images=2, num_objects=600, crowd=0.0, classes=("disc",))
    results = [
        {
            "image_id": a["image_id"],
            "category_id": a["category_id"],
            "bbox": a["bbox"],
            "score": 0.9,
        }
        for a in truth["annotations"]
    ]
    content = report(truth, results)
    assert any("--max-dets raises that" in text for text in content["remarks"])
    assert "--max-dets raises that" in Page().text


def test_no_detections_miss_everything_and_there_is_a_page():
    truth, _ = scene(0)
    content = report(truth, [])
    objects = sum(not a["iscrowd"] for a in truth["annotations"])
    assert content["summary"]["AP"] == content["summary"]["AR100"] == 0
    assert content["error_counts"]["Miss"] == objects == content["missed"]["total"]
    assert content["calibration"]["ece"] is None
    page = Page()
    assert "no detections: AP and AR are 0" in page.text and not page.unclosed


def test_a_set_without_objects_has_a_page():
    truth, results = scene(0)
    content = report({**truth, "annotations": []}, results)
    assert content["summary"]["AP"] == 0 and content["missed"]["total"] == 0
    assert all(row["AP"] is None for row in content["classes"].values())
    assert "has no objects to find" in Page().text


def test_against_itself_nothing_differs():
    truth, results = scene(1)
    content = report(truth, results, "--compare", "found.json")
    for name in ("AP", "AP50", "AP75"):
        change = content["compare"][name]
        assert change["delta"] == change["low"] == change["high"] == change["std_err"] == 0
    assert "no difference" in Page().text


def test_the_better_of_two_is_told():
    truth, worse = scene(2)
    better = [
        {
            "image_id": a["image_id"],
            "category_id": a["category_id"],
            "bbox": a["bbox"],
            "score": 0.9,
        }
        for a in truth["annotations"]
    ]
    content = report(truth, worse)
    Path("better.json").write_bytes(Path("found.json").read_bytes())
    change = report(truth, better, "--compare", "better.json")["compare"]["AP"]
    assert change["delta"] == pytest.approx(
        100 - content["summary"]["AP"], abs=6
    )  # crowds are detected, too
    assert 0 < change["low"] <= change["delta"] <= change["high"]
    assert "better, and hardly by chance" in Page().text


def test_the_file_of_thresholds_gives_the_same_numbers_again():
    truth, results = scene(4)
    first = report(truth, results)
    found = read_thresholds("thresholds.yaml")
    again = report(truth, results, "--score-thresh", "thresholds.yaml", "--json", "again.json")
    assert again == first  # report.json is the first one: the second went elsewhere

    again = json.loads(Path("again.json").read_text())
    for name in CLASSES:
        row = first["classes"][name]
        assert found.of_class[name] == row["threshold"]
        assert again["classes"][name] == row
    assert again["confusion"] == first["confusion"]


def test_a_detector_that_calls_one_class_another_shows_it_in_the_right_cell():
    truth, _ = scene(5, crowd=0.0)
    ids = {name: row["id"] for row in truth["categories"] for name in [row["name"]]}
    named = copy.deepcopy(truth["annotations"])
    results = [
        {
            "image_id": a["image_id"],
            "category_id": ids["bar"] if a["category_id"] == ids["ring"] else a["category_id"],
            "bbox": a["bbox"],
            "score": 0.9,
        }
        for a in named
    ]
    content = report(truth, results)
    matrix, labels = np.array(content["confusion"]["matrix"]), content["confusion"]["labels"]
    rings = sum(a["category_id"] == ids["ring"] for a in named)
    assert (
        matrix[labels.index("ring"), labels.index("bar")] >= rings - 2
    )  # some are one and the same
    assert matrix[labels.index("ring"), labels.index("ring")] == 0
    assert content["most_confused"][0]["actual"] == "ring"
    assert "ring taken for bar" in Page().text


def test_every_plotted_number_is_in_the_json():
    truth, results = scene(0)
    content = report(truth, results)
    assert set(content["score_curves"]["classes"]) == set(CLASSES)
    everything = content["score_curves"]["all"]
    assert len(everything["score"]) == len(everything["precision"]) == len(everything["f1"])
    best = everything["best"]
    assert best["f1"] == max(everything["f1"])
    for key in ("AP", "AP50", "AP75"):
        interval = content["intervals"][key]
        assert interval["value"] == pytest.approx(content["summary"][key], abs=1e-9)
        assert interval["low"] <= interval["value"] <= interval["high"]
