"""``retinanet-ext train`` and ``evaluate`` are what ``train_net.py`` is."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

import train_net
from retinanet_ext.cli import _build_parser, main
from retinanet_ext.cli import train as command
from retinanet_ext.data.datasets.register import register_builtin_datasets
from tests.helpers.tiny import restored_loggers, write_config

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def started(monkeypatch) -> list[argparse.Namespace]:
    """The arguments of each job, which is not run."""
    jobs: list[argparse.Namespace] = []
    monkeypatch.setattr(command, "launch_job", lambda main, args: jobs.append(args))
    return jobs


WORDS = ["--config-file", "c.yaml", "--resume", "--num-gpus", "0", "--train", "a:b"]
WORDS += ["--dist-timeout", "3", "--", "SEED", "1"]


def test_train_takes_the_arguments_of_train_net(started):
    train_net.run(WORDS)
    assert main(["train", *WORDS]) == 0
    script, tool = (vars(args) for args in started)
    assert {name: tool[name] for name in script} == script
    assert script["opts"] == ["SEED", "1"] and not script["eval_only"]


def test_evaluate_is_train_with_eval_only(started):
    train_net.run([*WORDS[:2], "--eval-only"])
    assert main(["evaluate", *WORDS[:2]]) == 0
    script, tool = (vars(args) for args in started)
    assert script["eval_only"] and {name: tool[name] for name in script} == script


def test_the_script_is_short():
    assert len((ROOT / "train_net.py").read_text().splitlines()) <= 15


def test_a_mistake_ends_both_with_2_and_the_same_sentence(started, capsys):
    words = ["--config-file", "c.yaml", "--num-gpus", "-1"]
    assert main(["train", *words]) == 2
    tool = capsys.readouterr().err
    with pytest.raises(SystemExit) as stop:
        train_net.run(words)
    assert stop.value.code == 2
    assert tool == f"retinanet-ext: {capsys.readouterr().err}" and "--num-gpus is -1" in tool


def test_without_a_config_the_command_names_those_there_are(started, capsys):
    assert main(["evaluate"]) == 2
    assert "quickstart.yaml" in capsys.readouterr().err and not started


def test_the_device_is_that_of_the_command_line(started):
    args = _build_parser("train").parse_args(["train", "--config-file", "c", "--device", "cpu"])
    assert args.device == "cpu"


@pytest.fixture
def tiny(tmp_path, tiny_root, monkeypatch):
    """Words that name a tiny config and dataset, in a folder with a module of the user's."""
    monkeypatch.chdir(tmp_path)
    Path("users_head_of_train.py").write_text(
        "from retinanet_ext.modeling.criteria.classification import FocalLoss\n"
        "from retinanet_ext.registry import CLS_LOSS_REGISTRY\n"
        "@CLS_LOSS_REGISTRY.register()\n"
        "class UsersFocalLossOfTrain(FocalLoss):\n"
        "    pass\n"
    )
    with restored_loggers():
        yield ["--config-file", str(write_config(tmp_path)), "--data-root", str(tiny_root)]
    register_builtin_datasets()


def test_a_component_of_an_imported_module_is_trained(tiny, capsys):
    key = ("MODEL.RETINANET.CLS_LOSS", "UsersFocalLossOfTrain")
    assert main(["train", *tiny, "--dry-run", *key]) == 2
    assert "UsersFocalLossOfTrain" in capsys.readouterr().err
    words = ["--import", "users_head_of_train", "--device", "cpu", "--dry-run"]
    assert main(["train", *tiny, *words, *key]) == 0
