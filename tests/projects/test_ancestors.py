"""compare.py: plans, proposals, shares of easy background, tables; and all of it at once."""

from __future__ import annotations

import dataclasses
import importlib.util
import itertools
import pickle
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
from ancestors import plan, report, tables
from ancestors.imbalance import shares
from ancestors.imbalance.counted import by_sigmoid
from ancestors.own import evaluate_own, load_own, one_cycle, train_own
from ancestors.plan import Comparison, child_command, missing
from ancestors.proposals import write_proposals
from ancestors.systems import ROOT, SYSTEMS, by_name
from detectron2.data import DatasetCatalog, load_proposals_into_dataset
from detectron2.structures import Boxes, Instances
from focal_loss_paper.runs import RESULT, read_json, write_json
from PIL import Image

from retinanet_ext.data.datasets.register import register_builtin_datasets
from retinanet_ext.errors import ConfigError, MissingFileError

pytestmark = pytest.mark.usefixtures("ancestors")

SCRIPT = ROOT / "projects" / "Ancestors" / "compare.py"
TINY = ["INPUT.MIN_SIZE_TRAIN", "(64,)", "INPUT.MIN_SIZE_TEST", "64", "DATALOADER.NUM_WORKERS", "0"]


@pytest.fixture(scope="module")
def tiny(tiny_root):
    """``bccd_train`` and ``bccd_val`` are coloured rectangles of 64 px."""
    register_builtin_datasets(tiny_root)
    yield tiny_root
    register_builtin_datasets()


@pytest.fixture
def comparison(tiny, tmp_path) -> Comparison:
    return Comparison("bccd", tmp_path, iterations=6, opts=TINY, data_root=str(tiny))


def _script():
    spec = importlib.util.spec_from_file_location("compare_ancestors", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_each_system_says_what_it_is():
    assert len({system.name for system in SYSTEMS}) == len(SYSTEMS)
    for system in SYSTEMS:
        assert system.answer and 2000 < system.year < 2030
        assert not system.proposals or not by_name(system.proposals).shown


def test_a_system_whose_config_is_absent_is_named_with_the_reason():
    absent = dataclasses.replace(by_name("retinanet"), config="configs/no_such.yaml")
    assert missing(absent) == "there is no configs/no_such.yaml"
    unknown = dataclasses.replace(by_name("retinanet"), imports=("no_such_module",))
    assert "no_such_module" in missing(unknown)
    assert missing(by_name("retinanet")) == "" == missing(by_name("rcnn"))


def test_unknown_dataset_is_named(tmp_path):
    with pytest.raises(ConfigError, match="'bcdc_train' is not registered"):
        Comparison("bcdc", tmp_path)


def test_configs_fit_the_dataset(comparison):
    for name in ("retinanet", "fcos", "faster_rcnn", "rpn"):
        cfg = comparison.cfg(by_name(name))
        assert cfg.DATASETS.TRAIN == ("bccd_train",) and cfg.INPUT.MIN_SIZE_TEST == 64
        assert cfg.INPUT.MAX_SIZE_TEST == 480  # of configs/bccd_R_18_FPN.yaml
    assert comparison.cfg(by_name("retinanet")).MODEL.RETINANET.NUM_CLASSES == 3
    assert comparison.cfg(by_name("faster_rcnn")).MODEL.ROI_HEADS.NUM_CLASSES == 3


def test_iterations_are_measured_once(comparison, monkeypatch):
    comparison.iterations, comparison.minutes = None, 2.0
    paces = []

    def measured(cfg, budget, val_images):
        paces.append(budget)
        return dataclasses.make_dataclass("Pace", ["step"])(0.5)

    monkeypatch.setattr(plan, "measure_pace", measured)
    system = by_name("retinanet")
    assert comparison.run(system, 1, plan=False) is None
    run = comparison.run(system, 1)
    assert run.iterations == int(0.97 * 120 / 0.5) and paces == [120.0]
    assert comparison.run(system, 2).iterations == run.iterations
    again = dataclasses.replace(comparison).run(system, 1, plan=False)
    assert again.folder == run.folder and len(paces) == 1
    other = dataclasses.replace(comparison, opts=[*TINY, "SOLVER.BASE_LR", "0.1"])
    assert other.run(system, 1, plan=False) is None, "another setting has another pace"
    # The network whose proposals are used takes a half of the time.
    assert comparison.run(by_name("rpn"), 1).iterations == int(0.97 * 60 / 0.5)
    assert comparison.run(by_name("rcnn"), 1) is None, "there are no proposals yet"


def test_child_commands(comparison):
    comparison.imports = ("my_data",)
    system = by_name("viola_jones")
    command = child_command(comparison.run(system, 3), system, comparison)
    assert command[1].endswith("train_own.py") and command[2] == "viola_jones"
    assert command[command.index("--seed") + 1] == "3" and "--data-root" in command
    system = by_name("retinanet")
    command = child_command(comparison.run(system, 1), system, comparison)
    assert command[1].endswith("train_net.py") and command[-1] == "--resume"
    assert command[command.index("--import") + 1] == "my_data"


def test_proposals_are_in_a_file_that_detectron2_reads(tiny, tmp_path):
    rng = np.random.default_rng(0)
    given = {}

    def propose(pixels):
        assert pixels.shape == (64, 64, 3)
        boxes = Boxes(
            torch.from_numpy(rng.uniform(0, 32, (4, 4))).float() + torch.tensor([0, 0, 32, 32])
        )
        found = Instances((64, 64), proposal_boxes=boxes, objectness_logits=torch.randn(4))
        given[len(given)] = found
        return found

    path = tmp_path / "folder" / "proposals.pkl"
    write_proposals(propose, "bccd_val", path)
    assert set(pickle.loads(path.read_bytes())) == {
        "ids",
        "boxes",
        "objectness_logits",
        "bbox_mode",
    }
    entries = load_proposals_into_dataset(DatasetCatalog.get("bccd_val"), str(path))
    for number, entry in enumerate(entries):
        order = given[number].objectness_logits.argsort(descending=True)
        want = given[number].proposal_boxes.tensor[order].numpy()
        np.testing.assert_allclose(entry["proposal_boxes"], want)


def test_focal_loss_takes_the_share_of_easy_background():
    # One object that is half right, a thousand cells of background that is nearly sure.
    logits = torch.full((1001, 1), -4.0)
    logits[0] = 0.0
    labels = torch.ones(1001, dtype=torch.long)
    labels[0] = 0
    counted = by_sigmoid(logits, labels, 1, (2.0, 0.25))
    assert counted.easy.sum() == 1000
    before, after = (
        float(x[counted.easy].sum() / x.sum()) for x in (counted.before, counted.after)
    )
    assert before > 0.95 and after < 0.15
    plain = by_sigmoid(logits, labels, 1)
    torch.testing.assert_close(plain.before, plain.after)
    ignored = by_sigmoid(logits, torch.full_like(labels, -1), 1)
    assert len(ignored.before) == 0


def test_learning_rate_rises_and_falls():
    assert one_cycle(0) == 0 and one_cycle(0.15) == pytest.approx(1)
    assert one_cycle(1) == pytest.approx(0, abs=1e-9) and 0.3 < one_cycle(0.6) < 0.7


@pytest.fixture(scope="module")
def cascade(tiny, tmp_path_factory):
    """A cascade of three stages, trained in one go, and its folder."""
    folder = tmp_path_factory.mktemp("cascade")
    patch = pytest.MonkeyPatch()
    for name, value in (("DRAWN", 100), ("NEGATIVES", 200), ("ENOUGH", 20), ("CLASS_ROUNDS", 10)):
        patch.setattr(f"ancestors.viola_jones.{name}", value)
    model = train_own("viola_jones", folder, "bccd_train", 1, 1, 3, say=lambda text: None)
    yield model, folder, patch
    patch.undo()


def test_each_stage_leaves_fewer_windows(cascade):
    model, folder, _ = cascade
    evaluate_own(model, folder, "bccd_val")
    windows = read_json(folder / "windows.json")["windows"]
    assert len(windows) == 4 and all(a > b for a, b in itertools.pairwise(windows))
    assert windows[-1] > 0
    share = shares._of_windows(model, "bccd_val", 2)
    assert share["of"] == "windows" and share["after"] < share["before"] <= 1


def test_cascade_is_read_as_it_was_written(cascade):
    model, folder, _ = cascade
    again = load_own("viola_jones", folder)
    pixels = np.random.default_rng(0).integers(0, 255, (64, 64, 3)).astype(np.uint8)
    first, second = model.detect(pixels), again.detect(pixels)
    np.testing.assert_array_equal(first.boxes, second.boxes)
    np.testing.assert_array_equal(first.scores, second.scores)


def test_interrupted_cascade_becomes_the_same(cascade, tiny, tmp_path):
    model, _, _ = cascade
    stopped = []

    def stop(text):
        stopped.append(text)
        if text.startswith("2 stages"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_own("viola_jones", tmp_path, "bccd_train", 1, 1, 3, say=stop)
    again = train_own("viola_jones", tmp_path, "bccd_train", 1, 1, 3, say=stopped.append)
    assert any("continues after 2" in text for text in stopped)
    assert len(again.stages) == 3
    for (ours, least), (theirs, other) in zip(model.stages, again.stages, strict=True):
        np.testing.assert_array_equal(ours.threshold, theirs.threshold)
        assert least == other


def test_interrupted_overfeat_continues(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr("ancestors.own.SAVED_EVERY", 0.0)
    lines = []

    def stop(text):
        lines.append(text)
        if text.startswith("2 steps"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_own("overfeat", tmp_path, "bccd_train", 1, 1, 3, say=stop)
    train_own("overfeat", tmp_path, "bccd_train", 1, 1, 3, say=lines.append)
    assert any("continues after 2 steps" in text for text in lines)
    saved = torch.load(tmp_path / "model_final.pth", weights_only=True)
    assert saved["clock"]["steps"] == 3


def test_tables_and_figures_of_made_up_results(comparison):
    runs = {}
    for i, name in enumerate(("viola_jones", "retinanet", "fcos")):
        system = by_name(name)
        runs[system] = [comparison.run(system, seed) for seed in (1, 2)]
        for run in runs[system]:
            metrics = {"AP": 10.0 * i + run.seed, "AP50": 50.0, "AP75": 20.0}
            result = {"config": name, "seed": run.seed, "iterations": 6, "seconds": 60.0}
            write_json(run.folder / RESULT, {**result, "status": "finished", "metrics": metrics})
        share = {"of": "loss", "before": 0.9, "after": 0.1}
        write_json(runs[system][0].folder / report.SHARES, share)
    folder = runs[by_name("viola_jones")][0].folder
    write_json(folder / "windows.json", {"windows": [1000.0, 300.0, 40.0]})
    times = {"viola_jones": 30.0, "retinanet": 41.0, "fcos": 40.0}
    write_json(comparison.folder / report.TIMES, {"ms": times})
    report.write_report(comparison, runs, {"CenterNet": "there is no file"})
    text = (comparison.folder / "table.md").read_text()
    assert "| RetinaNet | 2017 | 11.5 ± 0.7 | 50.0 ± 0.0 | 20.0 ± 0.0 | 41 | 1.0 | 2 |" in text
    assert "| 2 | 40 | 4.00 % |" in text and "90.0 % | 10.0 %" in text
    assert "Not there: CenterNet, as there is no file." in text
    for name in ("figure2.png", "imbalance.png"):
        assert np.asarray(Image.open(comparison.folder / name)).std() > 1
    results = read_json(comparison.folder / "results.json")
    assert [row["name"] for row in results["systems"]] == ["viola_jones", "retinanet", "fcos"]
    assert results["machine"] == tables.machine()


def test_publish_needs_something(tmp_path, monkeypatch):
    monkeypatch.setattr(report, "PROJECT", tmp_path / "project")
    with pytest.raises(MissingFileError, match="train something first"):
        report.publish(tmp_path, "bccd")
    (tmp_path / "table.md").write_text("#")
    assert (report.publish(tmp_path, "bccd") / "table.md").read_text() == "#"


@pytest.mark.parametrize("words", [["--minutes", "0"], ["--seeds", "0"], ["--system", "dpm"]])
def test_bad_arguments_are_refused(words, capsys):
    with pytest.raises(SystemExit) as stopped:
        _script().parse_args(words)
    assert stopped.value.code == 2 and words[0] in capsys.readouterr().err


@pytest.mark.slow
def test_two_systems_from_the_command_to_the_figures_interrupted_and_continued(tiny, tmp_path):
    words = ["--dataset", "bccd", "--data-root", str(tiny), "--iters", "2", "--output-dir"]
    words += [str(tmp_path), "--system", "retinanet", "--system", "rcnn", *TINY]
    command = [sys.executable, str(SCRIPT), *words, "SOLVER.IMS_PER_BATCH", "2"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    seen = ""
    for line in process.stdout or ():
        seen += line
        if line.startswith("rpn seed 1: AR@1000"):
            process.send_signal(signal.SIGINT)
            break
    seen += process.stdout.read()
    assert process.wait(600) == 130, seen
    done = subprocess.run(command, capture_output=True, text=True, timeout=3000)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "RPN, seed 1: training" not in done.stdout
    folder = tmp_path / "bccd"
    rows = {row["name"]: row for row in read_json(folder / "results.json")["systems"]}
    assert set(rows) == {"rcnn", "retinanet"}
    for row in rows.values():
        assert row["ms"] > 0 and row["mean"]["AP"] >= 0 and len(row["seeds"]) == 1
        assert 0 <= row["imbalance"]["after"] <= 1 and 0 <= row["imbalance"]["before"] <= 1
    assert (folder / "figure2.png").is_file() and (folder / "imbalance.png").is_file()
    assert len(list(folder.rglob("model_final.pth"))) == 3


@pytest.mark.slow
def test_cascade_and_overfeat_find_what_they_learned(cascade, tiny, tmp_path, monkeypatch):
    """Rectangles of three colours, on the pictures that they were learned from."""
    monkeypatch.setattr("ancestors.own.BATCH", 4)
    model, folder, _ = cascade
    found = evaluate_own(model, folder, "bccd_train")
    assert found["bbox/AP50"] > 10
    model = train_own("overfeat", tmp_path, "bccd_train", 1, 1, 60, say=lambda text: None)
    found = evaluate_own(model, tmp_path, "bccd_train")
    assert found["bbox/AP50"] > 20


RESULTS = ROOT / "projects" / "Ancestors" / "results" / "quickstart" / "results.json"


@pytest.mark.skipif(not RESULTS.is_file(), reason="no results of the quickstart are committed")
def test_committed_results_are_above_the_floors_and_say_where_they_are_from():
    results = read_json(RESULTS)
    assert results["machine"] and results["length"] and results["systems"]
    for row in results["systems"]:
        system = by_name(row["name"])
        assert row["ms"] > 0
        for seed in row["seeds"]:
            assert seed["status"] == "finished" and seed["metrics"]["AP50"] > system.floor
    windows = next(r["windows"] for r in results["systems"] if r["name"] == "viola_jones")
    assert all(a > b for a, b in itertools.pairwise(windows))
