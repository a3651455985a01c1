"""What docs/extending.md shows as code runs, each file in the way that the page says."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests import test_outsiders
from tests.helpers.tiny import SETTINGS, write_dataset

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "extending.md").read_text()
BLOCK = re.compile(r"^```(python|yaml)\n# (\S+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
FILES = {name: code for _, name, code in BLOCK.findall(PAGE)}
COMMANDS = re.findall(r"^```sh\npython (.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)

TRAIN = "import sys, train_net; train_net.run(sys.argv[1:])"
(ALL_PARTS,) = [c for c in COMMANDS if "own_parts.yaml" in c]
COMMAND_OF_ALL = shlex.split(ALL_PARTS.replace("\\\n", " "))[1:]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of the page, and a config that trains two iterations on twelve tiny images."""
    folder = tmp_path_factory.mktemp("extending")
    for name, code in FILES.items():
        (folder / name).write_text(code)
    solver = {**SETTINGS["SOLVER"], "MAX_ITER": 2}
    datasets = {**SETTINGS["DATASETS"], "TEST": "()"}
    settings = {**SETTINGS, "SOLVER": solver, "DATASETS": datasets}
    (folder / "tiny.yaml").write_text(yaml.safe_dump(settings))
    write_dataset(folder / "datasets")
    return folder


def run(folder: Path, *words: str) -> str:
    """Run Python in ``folder`` with ``train_net.py`` at hand; return what it printed."""
    environment = {
        **os.environ,
        "CUDA_VISIBLE_DEVICES": "",
        "DETECTRON2_DATASETS": str(folder / "datasets"),
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(ROOT),
    }
    command = [sys.executable, "-W", "ignore", *words]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def command_with(module: str) -> list[str]:
    """The arguments of the page's command that imports ``module`` first, on the tiny config."""
    (found,) = [c for c in COMMANDS if c.startswith(f"train_net.py --import {module} --config")]
    words = shlex.split(found.replace("\\\n", " "))[1:]
    assert (ROOT / "configs" / "quickstart.yaml").is_file()
    return ["tiny.yaml" if word == "configs/quickstart.yaml" else word for word in words]


def last_losses(folder: Path, output: str) -> dict[str, float]:
    """The metrics of the second and last iteration."""
    last = json.loads((folder / output / "metrics.json").read_text().splitlines()[-1])
    assert last["iteration"] == 1
    assert last["loss_cls"] > 0 and last["loss_box_reg"] > 0
    return last


def test_the_loss_has_the_value_that_the_page_says_and_parts_work_without_a_config(folder: Path):
    run(folder, "-c", "import check_poly_loss, parts_alone")


@pytest.mark.slow
def test_the_loss_trains_by_the_pages_command(folder: Path):
    run(folder, "-c", TRAIN, *command_with("poly_loss"), "OUTPUT_DIR", "poly")
    last_losses(folder, "poly")


@pytest.mark.slow
def test_a_key_of_ones_own_reaches_the_loss(folder: Path):
    check = (
        "from retinanet_ext.engine import RetinaNetTrainer as Trainer\n"
        "train = Trainer.train\n"
        "def checked(self):\n"
        "    assert self.model.cls_loss.epsilon == -0.5\n"
        "    return train(self)\n"
        "Trainer.train = checked\n"
    )
    run(folder, "-c", check + TRAIN, *command_with("tuned_poly_loss"), "OUTPUT_DIR", "key")
    last_losses(folder, "key")


def test_a_key_of_ones_own_is_held_to_its_rules(folder: Path):
    script = (
        "import tuned_poly_loss\n"
        "from retinanet_ext import get_cfg, validate_cfg\n"
        "cfg = get_cfg()\n"
        "cfg.MODEL.META_ARCHITECTURE = 'RetinaNetExt'\n"
        "def check(**keys):\n"
        "    again = cfg.clone()\n"
        "    for key, value in keys.items():\n"
        "        again.MODEL.RETINANET[key] = value\n"
        "    try:\n"
        "        print(validate_cfg(again))\n"
        "    except ValueError as error:\n"
        "        print(error)\n"
        "tuned = {'CLS_LOSS': 'TunedPoly1FocalLoss'}\n"
        "check(**tuned, POLY_EPSILON=-0.5)\n"
        "check(POLY_EPSILON=-0.5)\n"
        "check(**tuned, POLY_EPSILON=-2.0)\n"
        "check(**tuned, POLY_EPSILON=-0.5, FOCAL_LOSS_GAMMA=0.0)\n"
    )
    fine, unread, bound, together = run(folder, "-c", script).splitlines()
    assert fine == "[]"
    assert "does not read it; set MODEL.RETINANET.CLS_LOSS to TunedPoly1FocalLoss" in unread
    assert "POLY_EPSILON must be at least -1, got -2.0: the weight of the added term" in bound
    assert together.endswith("needs FOCAL_LOSS_GAMMA above 0")


@pytest.mark.slow
def test_all_parts_train_together(folder: Path):
    own, tiny = yaml.safe_load((folder / "own_parts.yaml").read_text())["MODEL"], SETTINGS["MODEL"]
    retinanet = {**tiny["RETINANET"], **own["RETINANET"]}
    model = {**tiny, "RETINANET": retinanet, "ANCHOR_GENERATOR": own["ANCHOR_GENERATOR"]}
    settings = yaml.safe_load((folder / "tiny.yaml").read_text())
    (folder / "parts.yaml").write_text(yaml.safe_dump({**settings, "MODEL": model}))
    words = ["parts.yaml" if x == "own_parts.yaml" else x for x in COMMAND_OF_ALL]
    run(folder, "-c", TRAIN, *words, "OUTPUT_DIR", "parts")
    last_losses(folder, "parts")
    printed = (folder / "parts" / "log.txt").read_text()
    for name in ("DilatedHead", "LongSideAnchorGenerator", "AlphaIoU", "Poly1FocalLoss"):
        assert f"{name}(" in printed


@pytest.mark.slow
def test_a_named_output_trains(folder: Path):
    start = "import runpy, scale_head; runpy.run_module('train_net', run_name='__main__')"
    words = ["--config-file", "tiny.yaml", "OUTPUT_DIR", "named"]
    run(folder, "-c", start, *words, "MODEL.RETINANET.HEAD", "ScaleHead")
    assert last_losses(folder, "named")["loss_scale"] != 0


@pytest.mark.slow
def test_another_project_trains_the_detector(folder: Path):
    settings = yaml.safe_load((folder / "tiny.yaml").read_text())
    settings["OUTPUT_DIR"] = "project"
    (folder / "project.yaml").write_text(yaml.safe_dump(settings))
    assert "RetinaNetExt(" in run(folder, "project_train.py")
    last_losses(folder, "project")


def test_every_block_is_a_file_that_runs():
    assert len(FILES) == len(re.findall(r"^```(?:python|yaml)$", PAGE, re.MULTILINE))
    assert len(COMMANDS) == len(re.findall(r"^```sh$", PAGE, re.MULTILINE))
    tests = "".join(x.read_text() for x in (Path(__file__), Path(test_outsiders.__file__)))
    tested = tests + "".join(FILES.values()) + "".join(COMMANDS)
    assert [name for name in FILES if not re.search(rf"\b{Path(name).stem}\b", tested)] == []
