"""The quickstart script: does what is missing, once, and goes on after an interruption."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import quickstart

from retinanet_ext import get_cfg, load_config_file


@pytest.fixture
def output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty output folder of the quickstart."""
    monkeypatch.setattr(quickstart, "ROOT", tmp_path)
    folder = tmp_path / quickstart.OUTPUT
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def commands(output: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """The commands of the quickstart, faked: each writes what the real one would."""
    called: list[tuple[str, ...]] = []

    def fake_step(what: str, *arguments: str) -> None:
        called.append(arguments)
        if arguments[0] == "train_net.py":
            output.mkdir(parents=True, exist_ok=True)
            (output / "model_final.pth").touch()
            line = {"bbox/AP": 71.25, "bbox/AR100": 80.0}
            (output / "metrics.json").write_text(json.dumps(line) + "\n")
        else:
            (output / "detections.png").touch()

    monkeypatch.setattr(quickstart, "run_step", fake_step)
    return called


def test_quickstart_trains_draws_and_reports_once(
    commands: list[tuple[str, ...]], capsys: pytest.CaptureFixture
) -> None:
    assert quickstart.main([]) == 0
    assert [command[0] for command in commands] == ["train_net.py", "-m"]
    assert "--resume" in commands[0]
    assert "bbox/AP 71.2, bbox/AR100 80.0" in capsys.readouterr().out
    commands.clear()
    assert quickstart.main([]) == 0
    assert commands == []


def test_the_last_line_of_the_quickstart_names_the_report(
    commands: list[tuple[str, ...]], output: Path, capsys: pytest.CaptureFixture
) -> None:
    report = output / quickstart.REPORT
    assert quickstart.main([]) == 0
    assert str(report) not in capsys.readouterr().out  # a training may do without one
    report.parent.mkdir()
    report.touch()
    assert quickstart.main([]) == 0
    assert capsys.readouterr().out.splitlines()[-1].endswith(str(report))


def test_quickstart_without_results_goes_on_training(
    commands: list[tuple[str, ...]], output: Path
) -> None:
    (output / "model_final.pth").touch()  # killed during the evaluation
    (output / "metrics.json").write_text('{"total_loss": 1.0}\n{"bbox/AP": 7')
    assert quickstart.main([]) == 0
    assert commands[0][0] == "train_net.py"


@pytest.mark.parametrize("installed", [False, True])
def test_quickstart_takes_pretrained_weights_where_they_are(
    commands: list[tuple[str, ...]], output: Path, monkeypatch: pytest.MonkeyPatch, installed: bool
) -> None:
    spec = object() if installed else None
    monkeypatch.setattr(quickstart.importlib.util, "find_spec", lambda name: spec)
    assert quickstart.main([]) == 0
    name = "quickstart_lite0.yaml" if installed else "quickstart.yaml"
    assert commands[0][:3] == ("train_net.py", "--config-file", f"configs/{name}")


@pytest.mark.parametrize("name", ["quickstart_lite0.yaml", "quickstart.yaml"])
def test_quickstart_continues_with_the_network_that_it_began_with(
    commands: list[tuple[str, ...]], output: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    cfg = get_cfg()
    load_config_file(cfg, name)
    (output / "config.yaml").write_text(cfg.dump())
    spec = None if "lite0" in name else object()  # installed or removed since
    monkeypatch.setattr(quickstart.importlib.util, "find_spec", lambda name: spec)
    assert quickstart.main([]) == 0
    assert commands[0][2] == f"configs/{name}"


def test_both_configs_write_where_the_script_looks() -> None:
    for path in quickstart.CONFIGS.values():
        cfg = get_cfg()
        load_config_file(cfg, path)
        assert cfg.OUTPUT_DIR == quickstart.OUTPUT


def test_quickstart_force_starts_anew(commands: list[tuple[str, ...]], output: Path) -> None:
    quickstart.main([])
    (output / "last_checkpoint").write_text("model_final.pth")
    commands.clear()
    assert quickstart.main(["--force"]) == 0
    assert [command[0] for command in commands] == ["train_net.py", "-m"]
    assert not (output / "last_checkpoint").exists()


def test_quickstart_redraws_for_a_newer_model(
    commands: list[tuple[str, ...]], output: Path
) -> None:
    quickstart.main([])
    commands.clear()
    os.utime(output / "detections.png", (1, 1))
    assert quickstart.main([]) == 0
    assert [command[0] for command in commands] == ["-m"]


class Child:
    """A process whose ``wait`` answers, one after another, with these statuses or exceptions."""

    def __init__(self, answers: list[int | BaseException]):
        self.answers = answers

    def wait(self) -> int:
        answer = self.answers.pop(0)
        if isinstance(answer, BaseException):
            raise answer
        return answer


def test_quickstart_failure_is_one_sentence(
    output: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(quickstart.subprocess, "Popen", lambda *_, **__: Child([3]))
    assert quickstart.main([]) == 1
    assert "training stopped with exit status 3" in capsys.readouterr().err


def test_ctrl_c_waits_for_training_to_save(
    output: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    child = Child([KeyboardInterrupt(), 130])
    monkeypatch.setattr(quickstart.subprocess, "Popen", lambda *_, **__: child)
    assert quickstart.main([]) == 1
    assert not child.answers, "the script ended before its child"
    assert "continues from the last checkpoint" in capsys.readouterr().err


def test_results_come_from_the_last_line_that_has_them(tmp_path: Path) -> None:
    path = tmp_path / "metrics.json"
    assert quickstart.last_results(path) == {}
    lines = [
        {"bbox/AP": 1.0, "bbox/AR100": 2.0},
        {"bbox/AP": 3.0, "bbox/AR100": 4.0, "iteration": 9},
        {"total_loss": 0.5},
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"bbox/AP": 5')
    assert quickstart.last_results(path)["bbox/AP"] == 3.0
