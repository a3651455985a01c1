"""run.json of runs that finish, fail, are stopped, killed and resumed."""

from __future__ import annotations

import errno
import json
import logging
import math
import sys
from pathlib import Path

import pytest
from detectron2.config import CfgNode
from detectron2.engine import HookBase, TrainerBase

from retinanet_ext.engine.evaluating.hook import EarlyStop, EvaluationHook
from retinanet_ext.engine.launch.stopping import StopSignals, TrainingStopped
from retinanet_ext.engine.records import run_summary
from retinanet_ext.engine.records.run_summary import RunSummary

STEPS = 6


class Stops(HookBase):
    """Raises after a step, as the hook that watches for signals does."""

    def __init__(self, iteration: int, error: BaseException):
        self._iteration, self._error = iteration, error

    def after_step(self):
        if self.trainer.iter == self._iteration:
            raise self._error


class Run(TrainerBase):
    """Iterations that do nothing, with an evaluation after each second one."""

    def __init__(self, cfg: CfgNode, *stops: Stops, values=(30.0, 50.0, 40.0)):
        super().__init__()
        self.values = list(values)
        self.evaluation = EvaluationHook(
            2, lambda: {"bbox": {"AP": self.values.pop(0)}}, cfg.OUTPUT_DIR, best_metric="bbox/AP"
        )
        self.register_hooks([self.evaluation, RunSummary(cfg, 7, self.evaluation), *stops])

    def run_step(self):
        pass


def summary(cfg: CfgNode) -> dict:
    def refuse(name):
        raise AssertionError(f"{name} is no JSON")

    return json.loads(Path(cfg.OUTPUT_DIR, "run.json").read_text(), parse_constant=refuse)


@pytest.fixture
def cfg(cfg: CfgNode) -> CfgNode:
    """The tiny config, whose output folder exists as after the set-up of a run."""
    cfg.TEST.BEST_METRIC = "bbox/AP"
    Path(cfg.OUTPUT_DIR).mkdir()
    return cfg


def test_a_finished_run_says_what_it_was_and_what_came_of_it(cfg, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["train_net.py", "--config-file", "my config.yaml"])
    try:
        raise ValueError("of the caller, who trains after it")
    except ValueError:
        Run(cfg).train(0, STEPS)
    found = summary(cfg)
    assert (found["status"], found["reason"], found["seed"]) == ("finished", "", 7)
    assert (found["iterations"], found["max_iterations"]) == (STEPS, STEPS)
    assert found["metrics"] == {
        "final": {"iteration": 5, "metrics": {"bbox/AP": 40.0}},
        "best": {"by": "bbox/AP", "iteration": 3, "metrics": {"bbox/AP": 50.0}},
    }
    assert found["command"].endswith("train_net.py --config-file 'my config.yaml'")
    assert found["config"]["MODEL"]["RETINANET"]["NUM_CLASSES"] == 3
    assert found["datasets"]["train"][0]["images"] == 12
    assert found["datasets"]["test"][0]["name"] == "tiny_val"
    assert found["started"] <= found["ended"] and 0 <= found["seconds"] < 60
    assert found["resumes"] == [] and set(found["versions"]) >= {"torch", "detectron2"}


def test_the_file_follows_each_evaluation(cfg):
    seen = []

    class Looks(HookBase):
        def after_step(self):
            found = summary(cfg)
            seen.append((found["status"], found["iterations"], len(found["metrics"])))

    Run(cfg, Looks()).train(0, STEPS)
    assert seen[:5] == [("running", n, m) for n, m in ((0, 0), (2, 2), (2, 2), (4, 2), (4, 2))]


@pytest.mark.parametrize(
    ("error", "status", "reason"),
    [
        (
            FloatingPointError("loss_cls is nan\nat 3"),
            "failed",
            "FloatingPointError: loss_cls is nan at 3",
        ),
        (
            SystemExit("SIGTERM: saved model_0000003.pth"),
            "stopped",
            "SIGTERM: saved model_0000003.pth",
        ),
        (SystemExit(0), "stopped", "SystemExit: 0"),
        (KeyboardInterrupt(), "stopped", "KeyboardInterrupt"),
    ],
)
def test_a_run_that_does_not_finish_says_why(cfg, error, status, reason):
    with pytest.raises(type(error)):
        Run(cfg, Stops(3, error)).train(0, STEPS)
    found = summary(cfg)
    assert (found["status"], found["reason"]) == (status, reason)
    assert found["iterations"] == 3 and found["ended"]


def test_a_run_that_a_signal_stops_names_it(cfg):
    signals = StopSignals()
    run = Run(cfg, Stops(3, TrainingStopped(0)))
    run._hooks[1]._signals, signals.received = signals, "SIGTERM"
    with pytest.raises(TrainingStopped):
        run.train(0, STEPS)
    assert (summary(cfg)["status"], summary(cfg)["reason"]) == ("stopped", "SIGTERM")


def test_a_training_that_ends_early_is_finished_with_a_reason(cfg):
    run = Run(cfg, values=(3.0, 2.0, 1.0))
    run.evaluation._patience = 1
    with pytest.raises(EarlyStop):
        run.train(0, STEPS)
    found = summary(cfg)
    assert (found["status"], found["iterations"], found["max_iterations"]) == ("finished", 4, 4)
    assert "did not get better" in found["reason"]


def test_a_resumed_run_keeps_the_history(cfg, monkeypatch):
    first = Run(cfg, Stops(4, RuntimeError("lost the network")))
    with pytest.raises(RuntimeError):
        first.train(0, STEPS)
    before = summary(cfg)
    before["seconds"] = 100.0
    Path(cfg.OUTPUT_DIR, "run.json").write_text(json.dumps(before))
    second = Run(cfg, values=(40.0,))
    second.load_state_dict(first.state_dict())
    second.train(5, STEPS)
    found = summary(cfg)
    assert found["status"] == "finished" and found["started"] == before["started"]
    assert 100 < found["seconds"] < 160
    (resume,) = found["resumes"]
    assert resume["iteration"] == 5 and resume["time"] >= before["ended"]
    assert resume["before"] == {"status": "failed", "reason": "RuntimeError: lost the network"}
    assert found["metrics"]["best"]["iteration"] == 3
    third = Run(cfg)
    third.train(STEPS, STEPS)
    assert [resume["iteration"] for resume in summary(cfg)["resumes"]] == [5, STEPS]
    assert not Path(cfg.OUTPUT_DIR, "run_1.json").exists()


def test_a_new_run_keeps_the_earlier_runs_file_aside(cfg):
    Run(cfg).train(0, STEPS)
    Run(cfg, values=(1.0, 2.0, 3.0)).train(0, STEPS)
    assert summary(cfg)["metrics"]["best"]["metrics"] == {"bbox/AP": 3.0}
    aside = json.loads(Path(cfg.OUTPUT_DIR, "run_1.json").read_text())
    assert aside["metrics"]["best"]["metrics"] == {"bbox/AP": 50.0}


def test_a_damaged_file_costs_the_history_alone(cfg, caplog):
    Path(cfg.OUTPUT_DIR, "run.json").write_text('{"status": "runn')
    Run(cfg).train(3, STEPS)
    assert summary(cfg)["resumes"][0]["before"] == {"status": None, "reason": None}
    assert "cannot be read" in caplog.text


def test_a_metric_that_is_not_finite_is_null(cfg):
    Run(cfg, values=(math.nan, 1.0, math.nan)).train(0, STEPS)
    found = summary(cfg)["metrics"]
    assert found["final"]["metrics"] == {"bbox/AP": None} and found["best"]["iteration"] == 3


def test_a_full_disk_is_one_error_and_training_goes_on(cfg, monkeypatch, caplog):
    def full(path, text):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(run_summary, "write_text", full)
    Run(cfg).train(0, STEPS)
    errors = [r.getMessage() for r in caplog.records if r.levelno == logging.ERROR]
    assert len(errors) == 1 and "run.json: " in errors[0] and "No space left" in errors[0]


def test_other_processes_write_nothing(cfg, monkeypatch):
    monkeypatch.setattr(run_summary.comm, "is_main_process", lambda: False)
    run = Run(cfg)
    run._hooks.remove(run.evaluation)
    run.train(0, STEPS)
    assert list(Path(cfg.OUTPUT_DIR).iterdir()) == []
