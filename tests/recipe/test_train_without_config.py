"""``retinanet-ext train --data``: what it says, writes, continues and refuses."""

from __future__ import annotations

import argparse
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from detectron2.data import DatasetCatalog, MetadataCatalog

from retinanet_ext import get_cfg, load_config_file, validate_cfg
from retinanet_ext.cli import main
from retinanet_ext.cli import train as command
from retinanet_ext.cli.options import train as options
from retinanet_ext.recipe import Pace
from retinanet_ext.recipe.written import FILE_NAME
from tests.helpers.tiny import CLASSES, restored_loggers, write_dataset


@pytest.fixture(autouse=True)
def traceless(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An empty current folder and cache; no names left in the catalogs, no log handlers."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    with restored_loggers():
        yield
    for catalog in (DatasetCatalog, MetadataCatalog):
        for name in ("custom_train", "custom_val"):
            if name in catalog:
                catalog.pop(name)


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[argparse.Namespace]:
    """The arguments of each job, which is not run; steps and evaluations take a second."""
    jobs: list[argparse.Namespace] = []
    monkeypatch.setattr(command, "launch_job", lambda main, args: jobs.append(args))
    monkeypatch.setattr(options, "measure_pace", lambda *_: Pace(1.0, 1.0, 0.0, 5.0, 4.0))
    monkeypatch.setattr(options, "stopwatch", lambda: lambda: 10.0)
    return jobs


@pytest.fixture
def cells(tmp_path: Path) -> Path:
    return write_dataset(tmp_path / "data") / "bccd"


SCRATCH = ["--device", "cpu"]


def read(path: str | Path) -> object:
    cfg = get_cfg()
    load_config_file(cfg, path)
    validate_cfg(cfg)
    return cfg


def test_the_table_and_the_file_say_what_was_chosen(started, cells, capsys):
    assert main(["train", "--data", str(cells), *SCRATCH, "--minutes", "10"]) == 0
    shown = capsys.readouterr().out
    assert "12 pictures; validation: " in shown and ", 3 pictures" in shown
    assert ", ".join(CLASSES) in shown
    for setting in ("network", "input size", "anchors", "batch", "flips", "length", "evaluation"):
        assert f"\n{setting} " in shown
    path = Path("output") / "bccd" / FILE_NAME
    assert started[0].config_file == str(path)
    text = path.read_text()
    assert yaml.safe_load(text) and "# network" in text
    cfg = read(path)
    assert cfg.DATASETS.TRAIN == ("custom_train",) and cfg.DATASETS.TEST == ("custom_val",)
    assert len(CLASSES) == cfg.MODEL.RETINANET.NUM_CLASSES
    # (600 - 10 - 5 - 4) * 0.97 - 10 evaluations
    assert cfg.SOLVER.MAX_ITER == 553 and cfg.TEST.EVAL_PERIOD == 56


def test_the_same_command_with_resume_does_not_choose_again(started, cells, monkeypatch):
    words = ["train", "--data", str(cells), *SCRATCH]
    assert main([*words, "SOLVER.IMS_PER_BATCH", "2"]) == 0
    path = Path(started[0].config_file)
    edited = path.read_text().replace("MAX_ITER: ", "MAX_ITER: 1")
    path.write_text(edited)
    monkeypatch.setattr(options, "make_recipe", lambda *_: pytest.fail("chosen again"))
    assert main([*words, "--resume", "SOLVER.IMS_PER_BATCH", "2"]) == 0
    job = started[1]
    assert job.resume and job.config_file == str(path) and path.read_text() == edited
    assert job.train is None  # the file says which data


def test_resume_without_an_earlier_run_chooses(started, cells):
    assert main(["train", "--data", str(cells), *SCRATCH, "--resume"]) == 0
    assert Path(started[0].config_file).is_file()


def test_the_users_keys_win_and_the_table_says_so(started, cells, capsys):
    words = ["SOLVER.BASE_LR", "0.5", "SOLVER.MAX_ITER", "7", "TEST.VAL_LOSS", "True"]
    words += ["OUTPUT_DIR", "elsewhere"]
    assert main(["train", "--data", str(cells), *SCRATCH, *words]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "yours: SOLVER.BASE_LR 0.5" in shown and "TEST.VAL_LOSS True yours" in shown
    cfg = read(Path("elsewhere") / FILE_NAME)
    assert (cfg.SOLVER.BASE_LR, cfg.SOLVER.MAX_ITER, cfg.TEST.VAL_LOSS) == (0.5, 7, True)


@pytest.mark.parametrize(("folder", "gone"), [("train", True), ("val", False)])
def test_a_picture_that_cannot_be_opened_is_named_before_anything_is_trained(
    folder: str, gone: bool, started, cells, capsys
):
    picture = sorted((cells / folder).iterdir())[-1]
    picture.unlink() if gone else picture.write_bytes(b"no picture")
    assert main(["train", "--data", str(cells), *SCRATCH]) == 2
    error = capsys.readouterr().err
    assert f"1 picture of {12 if gone else 3} cannot be used" in error and picture.name in error
    assert not started and not Path("output").exists()


def test_pictures_of_both_sets_are_counted(started, cells, capsys):
    train, val = (str(cells / "annotations" / f"instances_{x}.json") for x in ("train", "val"))
    folder = str(cells / "train")
    words = ["train", "--train", f"{train}:{folder}", "--val"]
    assert main([*words, f"{train}:{folder}", *SCRATCH, "OUTPUT_DIR", "output/a"]) == 0
    assert "12 of 12 validation pictures are trained on, too" in capsys.readouterr().out
    assert main([*words, f"{val}:{cells / 'val'}", *SCRATCH, "OUTPUT_DIR", "output/b"]) == 0
    assert "trained on, too" not in capsys.readouterr().out


def test_epochs_take_the_place_of_minutes(started, cells):
    assert main(["train", "--data", str(cells), *SCRATCH, "--epochs", "10"]) == 0
    cfg = read(started[0].config_file)
    assert cfg.SOLVER.MAX_ITER == 10 * 12 // cfg.SOLVER.IMS_PER_BATCH


def test_without_a_validation_set_a_part_is_held_back(started, cells, capsys):
    shutil.rmtree(cells / "val")
    (cells / "annotations" / "instances_val.json").unlink()
    assert main(["train", "--data", str(cells), *SCRATCH]) == 0
    assert "of it, held back" in capsys.readouterr().out
    cfg = read(started[0].config_file)
    assert [row["SPLIT"] for row in cfg.DATASETS.EXTRA] == ["train", "val"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--data", "nowhere"], "annotations .*nowhere do not exist"),
        (["--data", "{cells}", "--train", "{cells}"], "--data and --train both name"),
        (["--minutes", "3"], "--data is missing"),
        (["--config-file", "c.yaml", "--preset", "fast"], "--config-file says how long and what"),
        (["--data", "{cells}", "--minutes", "0.1"], "--minutes 0.1 is too short"),
        (["--data", "{cells}", "SOLVER.EPOCHS", "3"], "the length is --epochs N"),
        (["--data", "{cells}", "SOLVER.MAX_ITTER", "3"], "Did you mean 'SOLVER.MAX_ITER'"),
    ],
)
def test_a_mistake_is_one_sentence(words, said, started, cells, capsys):
    assert main(["train", *(x.format(cells=cells) for x in words)]) == 2
    error = capsys.readouterr().err
    lines = [x for x in error.splitlines() if x.startswith("retinanet-ext: ")]
    assert len(lines) == 1 and re.search(said, lines[0]), error
    assert not started and not Path("output").exists()


def test_processes_of_torchrun_are_told_to_use_the_file(started, cells, capsys, monkeypatch):
    for name in ("RANK", "LOCAL_RANK", "MASTER_PORT"):
        monkeypatch.setenv(name, "0")
    for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("MASTER_ADDR", "localhost")
    assert main(["train", "--data", str(cells)]) == 2
    assert "recipe.yaml" in capsys.readouterr().err


def test_data_with_a_config_is_the_training_set(started, cells):
    assert main(["train", "--config-file", "c.yaml", "--data", str(cells)]) == 0
    assert (started[0].train, started[0].config_file) == (str(cells), "c.yaml")


@pytest.mark.slow
def test_a_minute_from_a_folder_to_a_model(cells, capfd):
    """Measures, trains, evaluates, and continues what it has done."""
    words = ["train", "--data", str(cells), *SCRATCH, "--preset", "fast", "--minutes", "1.5"]
    tiny = ["INPUT.MIN_SIZE_TRAIN", "(64,)", "INPUT.MIN_SIZE_TEST", "64", "MODEL.WEIGHTS", ""]
    tiny += ["SOLVER.IMS_PER_BATCH", "1", "DATALOADER.NUM_WORKERS", "0"]
    tiny += ["MODEL.FPN.OUT_CHANNELS", "32"]
    assert main([*words, *tiny]) == 0
    shown = capfd.readouterr().out
    output = Path("output") / "bccd"
    assert "use it: retinanet-ext predict output/bccd PICTURES --weights best" in shown
    assert (output / "model_best.pth").is_file() and "best model: " in shown
    before = (output / FILE_NAME).read_text()
    assert main([*words, "--resume", *tiny]) == 0
    assert (output / FILE_NAME).read_text() == before
    assert "continuing with what was chosen" in capfd.readouterr().out
