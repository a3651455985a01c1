"""The course of a training in a report, from files that may be incomplete."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from retinanet_ext.report.compute.history import MOST_POINTS, mask_results, read_curves, read_run
from retinanet_ext.report.page.sections.training import training


def write(folder: Path, rows: list[dict], evaluations: list[dict] = (), run: dict | None = None):
    (folder / "metrics.json").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "evaluations.json").write_text(json.dumps(list(evaluations)))
    if run is not None:
        (folder / "run.json").write_text(json.dumps(run))


def step(iteration: int, loss: float) -> dict:
    return {"iteration": iteration, "total_loss": loss, "loss_cls": loss / 2, "lr": 0.01}


def test_what_a_resumed_run_did_twice_counts_once_and_the_resume_is_marked(tmp_path):
    rows = [step(19, 3.0), step(39, 2.0), step(39, 1.5), step(59, 1.0)]
    write(tmp_path, rows, run={"resumes": [{"iteration": 40}, {"no": 1}]})
    curves = read_curves(str(tmp_path))
    assert curves["train"]["total_loss"] == {"iteration": [19, 39, 59], "value": [3.0, 1.5, 1.0]}
    assert curves["resumes"] == [40]
    page = training({"training": curves})
    assert "resumed at iteration 40" in page and "learning rate (right axis)" in page


def test_lines_that_were_cut_off_and_numbers_that_are_none_are_left_out(tmp_path):
    write(tmp_path, [step(19, 3.0), {"iteration": 39, "total_loss": None, "lr": 0.1}])
    with open(tmp_path / "metrics.json", "a") as file:
        file.write('{"iteration": 59, "total_l')
    curves = read_curves(str(tmp_path))
    assert curves["train"]["total_loss"]["iteration"] == [19]
    assert curves["train"]["lr"]["iteration"] == [19, 39]


def test_long_curves_become_means_of_neighbours(tmp_path):
    write(tmp_path, [step(i, 1.0 + i % 2) for i in range(4 * MOST_POINTS)])
    curve = read_curves(str(tmp_path))["train"]["total_loss"]
    assert len(curve["iteration"]) == MOST_POINTS
    assert curve["value"] == pytest.approx([1.5] * MOST_POINTS)


def test_the_average_of_the_weights_is_dashed_beside_the_raw_ones(tmp_path):
    metrics = {"bbox/AP": 30.0, "ema/bbox/AP": 32.0, "bbox/AP-cat": 5.0, "val_loss/total": 0.7}
    write(tmp_path, [step(19, 1.0)], [{"iteration": 19, "metrics": metrics}])
    curves = read_curves(str(tmp_path))
    assert set(curves["evaluations"]) == {"bbox/AP", "ema/bbox/AP", "val_loss/total"}
    page = training({"training": curves})
    assert "c0 dashed" in page and "EMA AP" in page and "validation, total" in page


def test_of_several_test_sets_only_the_own_results_are_shown(tmp_path):
    metrics = {"a/bbox/AP": 1.0, "b/bbox/AP": 2.0, "ema/b/bbox/AP": 3.0, "b/val_loss/total": 4.0}
    write(tmp_path, [], [{"iteration": 19, "metrics": metrics}])
    curves = read_curves(str(tmp_path), "b")["evaluations"]
    values = {name: curve["value"] for name, curve in curves.items()}
    assert values == {"bbox/AP": [2.0], "ema/bbox/AP": [3.0], "val_loss/total": [4.0]}


@pytest.mark.parametrize("content", ["", "[", "null", '[{"iteration": 3}]', '{"a": 1}', "[[[1]]]"])
def test_files_that_are_none_are_as_if_they_were_not_there(tmp_path, content):
    for name in ("metrics.json", "evaluations.json", "run.json"):
        (tmp_path / name).write_text(content)
    assert read_curves(str(tmp_path)) == {}
    run = read_run(str(tmp_path))
    assert not run or run == {"resumes": []}
    assert training({}) == ""


def test_nothing_is_told_of_machines_and_folders(tmp_path):
    run = {
        "status": "finished",
        "iterations": 10,
        "seconds": 12.5,
        "folder": "/home/someone",
        "command": "/home/someone/python train_net.py",
        "machine": {"host": "their-host", "device": "cpu"},
        "datasets": {"train": [{"name": "cells", "images": 3, "annotations": "/home/someone/a"}]},
    }
    write(tmp_path, [], run=run)
    told = json.dumps(read_run(str(tmp_path)))
    assert "someone" not in told and "their-host" not in told
    assert "cells" in told and "cpu" in told


def test_results_of_masks_are_those_of_the_same_evaluation(tmp_path):
    first = {"bbox/AP": 30.0, "segm/AP": 25.0, "segm/AP50": 50.0, "segm/AP75": 20.0}
    last = {**first, "bbox/AP": 40.0, "segm/AP": 35.0, "ema/bbox/AP": 41.0, "ema/segm/AP": 36.0}
    last |= {"ema/segm/AP50": 51.0, "ema/segm/AP75": 21.0}
    rows = [{"iteration": i, "metrics": x} for i, x in ((9, first), (19, last))]
    write(tmp_path, [step(19, 1.0)], rows)
    evaluations = read_curves(str(tmp_path))["evaluations"]
    assert mask_results(evaluations, 40.0) == {"AP": 35.0, "AP50": 50.0, "AP75": 20.0}
    assert mask_results(evaluations, 41.0) == {"AP": 36.0, "AP50": 51.0, "AP75": 21.0}
    assert mask_results(evaluations, 30.0) == {}  # of an evaluation that is not the last
    boxes_only = {name: curve for name, curve in evaluations.items() if "segm" not in name}
    assert mask_results(boxes_only, 40.0) == {}
