"""Runs in child processes: recorded, skipped, tried again, killed; a child is a line of Python."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from focal_loss_paper import runs
from focal_loss_paper.rows import load_tables
from focal_loss_paper.training import train_runs
from reproduce import child_command, parse_args

TABLES = load_tables()

METRICS = {"bbox/AP": 50.0, "bbox/AP50": 80.0, "bbox/AP75": 55.0}
FINISH = f"""
import json, sys, time
print("Total inference pure compute time: 0:00:01 (0.025000 s / iter per device, on 1 devices)")
open(sys.argv[1] + "/metrics.json", "w").write(json.dumps({METRICS!r}))
"""
DIVERGE = "raise FloatingPointError('Loss became infinite or NaN at iteration=7!')"
BREAK = "raise RuntimeError('the disk is full')"


class Children:
    """Makes commands, and remembers for which runs."""

    def __init__(self, script: str):
        self.script = script
        self.started: list[str] = []

    def __call__(self, run: runs.Run) -> list[str]:
        self.started.append(run.name)
        return [sys.executable, "-S", "-c", self.script, str(run.folder)]


def train(book: runs.RunIndex, script: str, *configs: str, **options: Any) -> tuple[Children, int]:
    children = Children(script)
    options.setdefault("say", lambda text: None)
    failed = train_runs([book.run(c, 1) for c in configs or ("1a_ce",)], children, **options)
    return children, failed


def test_finished_run_is_recorded_and_skipped(book):
    lines: list[str] = []
    children, failed = train(book, FINISH, say=lines.append)
    assert children.started == ["1a_ce seed 1"] and failed == 0
    assert "1a_ce seed 1: AP 50.0" in lines[-1]
    result = book.run("1a_ce", 1).result()
    assert result["status"] == "finished" and result["metrics"]["AP50"] == 80.0
    assert result["seconds_per_image"] == 0.025 and result["seconds"] > 0
    assert train(book, BREAK)[0].started == []
    # The same settings under another table's name are done too; another number of iterations not.
    train(book, FINISH, "1b_gamma0")
    assert train(book, BREAK, "1a_alpha0.75")[0].started == []
    longer = runs.RunIndex(
        dataclasses.replace(book.setting, iterations=491), book.runs_folder.parent
    )
    assert longer.run("1a_ce", 1).result() == {}


def test_run_yaml_is_the_rows_config(book):
    train(book, FINISH, "1d_ohem256_nms0.7")
    run = book.run("1d_ohem256_nms0.7", 1)
    content = yaml.safe_load((run.folder / "run.yaml").read_text())
    assert content["MODEL"]["RETINANET"]["OHEM_BATCH"] == 256
    assert content["SEED"] == 1 and content["OUTPUT_DIR"] == str(run.folder)
    command = child_command(run, parse_args(["--num-gpus", "2"], list(TABLES)))
    assert command[1].endswith("train_net.py") and command[-3:] == ["--num-gpus", "2", "--resume"]


def test_run_that_diverges_is_recorded_and_not_tried_again(book):
    _, failed = train(book, DIVERGE)
    result = book.run("1a_ce", 1).result()
    assert failed == 0 and result["status"] == "diverged" and result["at_iteration"] == 7
    assert train(book, FINISH)[0].started == []


def test_failed_run_names_the_reason_and_is_tried_again(book):
    lines: list[str] = []
    children, failed = train(book, BREAK, "1a_ce", "1b_gamma2", say=lines.append)
    assert failed == 2 and len(children.started) == 2, "the others go on"
    assert "RuntimeError: the disk is full" in lines[-1]
    assert book.run("1a_ce", 1).result()["status"] == "failed"
    assert train(book, FINISH)[1] == 0
    assert book.run("1a_ce", 1).result()["status"] == "finished"


def test_the_reason_of_a_child_that_fails_at_once_is_found(book, monkeypatch):
    start, lines = subprocess.Popen, list[str]()

    def start_and_wait(*args, **options):
        process = start(*args, **options)
        process.wait(60)
        return process

    monkeypatch.setattr(subprocess, "Popen", start_and_wait)
    train(book, BREAK, say=lines.append)
    assert "RuntimeError: the disk is full" in lines[-1]


def test_earlier_divergence_in_the_console_does_not_count(book):
    folder = book.run("1a_ce", 1).folder
    folder.mkdir(parents=True)
    (folder / runs.CONSOLE).write_text("FloatingPointError: Loss became infinite or NaN\n")
    train(book, BREAK)
    assert book.run("1a_ce", 1).result()["status"] == "failed"


def test_ending_well_without_results_is_a_failure(book):
    assert train(book, "pass")[1] == 1
    assert "metrics.json" in book.run("1a_ce", 1).result()["reason"]


def test_interrupt_kills_children_and_the_next_call_goes_on(book, monkeypatch):
    monkeypatch.setattr("focal_loss_paper.training.POLL", 0.02)
    # The first child ends at once; the other sleeps and has a stubborn child, as loaders may be.
    stubborn = (
        "import os, pathlib, signal, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "pathlib.Path('pid.tmp').write_text(str(os.getpid()))\n"
        "os.rename('pid.tmp', 'pid')\n"
        "time.sleep(60)\n"
    )
    script = (
        "import subprocess, sys, time\n"
        "if '1a_ce-' in sys.argv[1]: sys.exit(3)\n"
        f"subprocess.Popen([sys.executable, '-S', '-c', {stubborn!r}], cwd=sys.argv[1])\n"
        "time.sleep(60)\n"
    )
    sleeper = book.run("1b_gamma2", 1)

    def interrupt() -> None:
        while not (sleeper.folder / "pid").exists():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)

    with pytest.raises(KeyboardInterrupt):
        train(book, script, "1a_ce", "1b_gamma2", jobs=2, on_result=interrupt)
    assert sleeper.result()["status"] == "interrupted"
    pid = int((sleeper.folder / "pid").read_text())
    deadline = time.monotonic() + 10
    while is_running(pid) and time.monotonic() < deadline:  # a killed process takes a moment
        time.sleep(0.01)
    assert not is_running(pid)
    children, failed = train(book, FINISH, "1a_ce", "1b_gamma2")
    assert len(children.started) == 2 and failed == 0


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_jobs_run_at_the_same_time_and_share_the_cores(book, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    # Each waits for the other, so this ends only if both run at once.
    script = (
        "import os, sys, time, pathlib\n"
        "folder = pathlib.Path(sys.argv[1])\n"
        "print('threads', os.environ['OMP_NUM_THREADS'])\n"
        "(folder / 'here').touch()\n"
        "while len(list(folder.parents[1].glob('*/*/here'))) < 2: time.sleep(0.01)\n"
    )
    _, failed = train(book, script + FINISH, "1a_ce", "1b_gamma2", jobs=2)
    assert failed == 0
    assert "threads 3" in (book.run("1a_ce", 1).folder / runs.CONSOLE).read_text()


def test_run_that_another_process_trains_is_left_to_it(book):
    import fcntl

    folder = book.run("1a_ce", 1).folder
    folder.mkdir(parents=True)
    with open(folder / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lines: list[str] = []
        assert train(book, FINISH, say=lines.append)[0].started == []
    assert "another process trains it" in lines[-1]


def test_finished_run_keeps_only_the_weights(book):
    folder = book.run("1a_ce", 1).folder
    folder.mkdir(parents=True)
    weights = {"w": torch.arange(3.0)}
    for name in ("model_0000009.pth", "model_final.pth"):
        torch.save({"model": weights, "optimizer": {"state": 1}, "iteration": 9}, folder / name)
    train(book, FINISH)
    assert [path.name for path in folder.glob("*.pth")] == ["model_final.pth"]
    content = torch.load(folder / "model_final.pth")
    assert list(content) == ["model"] and torch.equal(content["model"]["w"], weights["w"])
