"""Measuring takes the mean of some steps by the clock it is given."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from retinanet_ext import get_cfg
from retinanet_ext.recipe import pace


class Machine:
    """A clock that runs when steps are taken, and a trainer that takes them."""

    def __init__(self, seconds: list[float]):
        self.now, self.seconds, self.steps = 100.0, seconds, 0
        self.cfg, self.ema = get_cfg(), None
        self.cfg.MODEL.DEVICE = "cpu"
        self.storage: Any = None

    def clock(self) -> float:
        return self.now

    def run_step(self) -> None:
        self.now += self.seconds[min(self.steps, len(self.seconds) - 1)]
        self.steps += 1


def test_the_first_steps_do_not_count():
    machine = Machine([60.0, 30.0, 10.0, 0.5])
    trainer: Any = machine
    assert pace._seconds_per_step(trainer, 0.0, machine.clock) == pytest.approx(0.5)
    assert machine.steps == pace.WARM_UP + pace.LEAST_STEPS


def test_it_takes_longer_where_the_budget_allows_and_never_too_long():
    quick, slow = Machine([0.01]), Machine([2.0])
    for machine in (quick, slow):
        trainer: Any = machine
        pace._seconds_per_step(trainer, 27.0, machine.clock)
    assert quick.steps == pace.WARM_UP + pace.MOST_STEPS
    assert 27 / 2 <= slow.steps - pace.WARM_UP <= 27 / 2 + 1


def test_the_stopwatch_counts_the_start_of_a_young_process_only(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(pace, "_age_of_process", lambda: 7.0)
    spent = pace.stopwatch()
    assert 7 <= spent() <= spent() < 60
    monkeypatch.setattr(pace, "_age_of_process", lambda: 5000.0)
    assert pace.LONGEST_LOADING <= pace.stopwatch()() < 60


def test_the_measured_run_writes_nothing_to_the_output_folder():
    cfg = get_cfg()
    cfg.OUTPUT_DIR, cfg.WRITERS = "mine", ["wandb"]
    measured = pace._for_measuring(cfg, "elsewhere")
    assert (measured.OUTPUT_DIR, measured.WRITERS) == ("elsewhere", [])
    assert cfg.OUTPUT_DIR == "mine" and SimpleNamespace(**cfg).WRITERS == ["wandb"]
