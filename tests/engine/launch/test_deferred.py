"""Ctrl-C while a loader's workers start waits until they have, and then ends the evaluation."""

from __future__ import annotations

import multiprocessing
import signal

import pytest
from torch.utils.data import DataLoader

from retinanet_ext.engine.launch.deferred import StartsWhole, signals_deferred
from retinanet_ext.engine.launch.signals import quiet_signals
from retinanet_ext.engine.launch.stopping import StopSignals, TrainingStopped


class Interrupted:
    """A loader during whose start, or at whose end, Ctrl-C is pressed."""

    def __init__(self, at_start: bool):
        self.at_start = at_start
        self.is_started = self.is_ended = False

    def __iter__(self):
        if self.at_start:
            signal.raise_signal(signal.SIGINT)
        self.is_started = True
        return Batches(self)


class Batches:
    def __init__(self, loader: Interrupted):
        self.loader = loader
        self.left = [1, 2]

    def __iter__(self):
        return self

    def __next__(self):
        if not self.left:
            raise StopIteration
        return self.left.pop(0)

    def _shutdown_workers(self):
        if not self.loader.at_start:
            signal.raise_signal(signal.SIGINT)
        self.loader.is_ended = True


@pytest.mark.parametrize("at_start", [True, False])
def test_a_signal_waits_until_workers_have_started_or_ended(at_start: bool):
    loader = Interrupted(at_start)
    with pytest.raises(SystemExit) as stop, quiet_signals():
        list(StartsWhole(loader))
    assert stop.value.code == 130
    assert loader.is_started and loader.is_ended


def test_so_it_does_in_an_evaluation_of_a_training():
    loader, signals = Interrupted(at_start=True), StopSignals()
    with pytest.raises(TrainingStopped), signals:
        signals.at_once = True
        list(StartsWhole(loader))
    assert signals.received == "SIGINT" and loader.is_started and loader.is_ended


def test_a_signal_between_batches_does_not_wait():
    loader = StartsWhole(DataLoader(range(4), num_workers=1))
    seen = []
    with pytest.raises(SystemExit), quiet_signals():
        for batch in loader:
            seen.append(int(batch))
            signal.raise_signal(signal.SIGINT)
    assert seen == [0] and multiprocessing.active_children() == []


def test_blocks_within_blocks_end_with_the_outer_one():
    reached = []
    with pytest.raises(SystemExit), quiet_signals(), signals_deferred():
        with signals_deferred():
            signal.raise_signal(signal.SIGINT)
        reached.append("inner")
    assert reached == ["inner"]


def test_in_all_else_it_is_the_loader():
    loader = DataLoader(range(4), batch_size=2)
    whole = StartsWhole(loader)
    assert len(whole) == 2 and whole.batch_size == 2
    assert [x.tolist() for x in whole] == [[0, 1], [2, 3]] == [x.tolist() for x in whole]
