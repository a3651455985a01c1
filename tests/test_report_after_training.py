"""A training ends with a report on its test set, which never fails it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import train_net
from retinanet_ext.cli import run_report
from retinanet_ext.data.datasets.register import register_builtin_datasets
from tests.helpers.reports import Page
from tests.helpers.tiny import restored_loggers, write_config

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def words(tmp_path, tiny_root):
    """Of a training of five iterations; logging and root are undone after."""
    with restored_loggers():
        yield [
            *("--config-file", str(write_config(tmp_path))),
            *("--data-root", str(tiny_root), "--num-gpus", "0"),
        ]
    register_builtin_datasets()


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Where the report is to be."""
    return tmp_path / "output" / "inference"


def test_a_training_ends_with_a_report_and_says_where(words, place, capsys):
    train_net.run(words)
    said = capsys.readouterr().out.strip().splitlines()
    assert said[-1].endswith(f"report: {place / 'report.html'}")
    page = Page(place / "report.html")
    assert "training" in page.ids() and "trained for 5 iterations" in page.text
    content = json.loads((place / "report.json").read_text())
    last = json.loads((place.parent / "evaluations.json").read_text())[-1]["metrics"]
    assert content["summary"]["AP"] == pytest.approx(last["bbox/AP"], abs=1e-9)
    assert content["missed"]["with_model"]
    checksum = (place.parent / "model_final.pth.sha256").read_text().split()[0]
    assert checksum in (place / "thresholds.yaml").read_text()
    assert str(place.parent) not in page.source


def test_a_failure_of_the_report_fails_no_training(words, place, capsys, monkeypatch):
    def fail(*args, **options):
        raise RuntimeError("out of\nluck")

    monkeypatch.setattr(run_report, "write_report", fail)
    train_net.run(words)
    warned = [line for line in capsys.readouterr().out.splitlines() if "no report" in line]
    assert len(warned) == 1 and "out of luck" in warned[0]
    assert "the training is not affected" in warned[0] and "retinanet-ext report" in warned[0]
    assert not (place / "report.html").exists()
    assert (place.parent / "model_final.pth").is_file()


def test_without_the_key_there_is_none(words, place):
    train_net.run([*words, "TEST.REPORT", "False"])
    assert (place / "coco_instances_results.json").is_file()
    assert not (place / "report.html").exists()


@pytest.mark.slow
def test_one_of_two_processes_writes_it(words, place):
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(ROOT / "train_net.py"), *words[:-1], "2"]
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("report: ") == 1
    assert "training" in Page(place / "report.html").ids()
