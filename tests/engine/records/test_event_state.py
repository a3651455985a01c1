"""A restored event storage, against the one that went on."""

from __future__ import annotations

import io
import math
import random

import torch
from detectron2.utils.events import EventStorage

from retinanet_ext.engine.progress import ProgressLine
from retinanet_ext.engine.records.event_state import HISTORY_LENGTH, restore_storage, storage_state


def put(storage: EventStorage, iterations: range) -> None:
    """What a run puts: noisy losses, a learning rate, and now and then an evaluation."""
    for iteration in iterations:
        rng = random.Random(iteration)
        storage.iter = iteration
        storage.put_scalars(total_loss=rng.random(), loss_cls=rng.random(), time=rng.random())
        storage.put_scalar("data_time", rng.random() / 10)
        storage.put_scalar("lr", rng.random(), smoothing_hint=False)
        if iteration % 7 == 6:
            storage.put_scalar("bbox/AP", rng.random(), smoothing_hint=False)


def saved_and_loaded(state: dict) -> dict:
    """``state`` from a file, as a checkpoint is read."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def test_a_restored_storage_goes_on_as_the_one_that_was_not_interrupted():
    whole, first, second = EventStorage(0), EventStorage(0), EventStorage(30)
    put(whole, range(50))
    put(first, range(30))
    restore_storage(second, saved_and_loaded(storage_state(first)))
    put(second, range(30, 50))
    assert list(second.latest()) == list(whole.latest())
    assert second.latest_with_smoothing_hint(20) == whole.latest_with_smoothing_hint(20)
    assert second.smoothing_hints() == whole.smoothing_hints()
    lines = [ProgressLine(100, 8).format_line(storage) for storage in (whole, second)]
    assert lines[0] == lines[1] and "eta" in lines[0]


def test_values_that_wait_to_be_written_keep_their_iterations():
    storage, restored = EventStorage(0), EventStorage(9)
    put(storage, range(9))  # an evaluation at 6
    restore_storage(restored, storage_state(storage))
    assert restored.latest() == storage.latest()
    assert restored.latest()["bbox/AP"][1] == 6 and restored.latest()["lr"][1] == 8
    assert restored.iter == 9


def test_state_holds_the_last_values_only():
    storage, restored = EventStorage(0), EventStorage(0)
    put(storage, range(HISTORY_LENGTH + 50))
    state = storage_state(storage)
    scalar = state["scalars"]["total_loss"]
    assert scalar["values"].shape == scalar["iterations"].shape == (HISTORY_LENGTH,)
    assert scalar["iterations"][[0, -1]].tolist() == [50, HISTORY_LENGTH + 49]
    restore_storage(restored, state)
    assert restored.history("time").median(1000) == storage.history("time").median(1000)


def test_numbers_come_back_bit_for_bit_also_those_that_are_not_finite():
    storage, restored = EventStorage(0), EventStorage(0)
    for iteration, value in enumerate((0.1, 1e-300, math.inf, math.nan)):
        storage.put_scalar("loss", value, cur_iter=iteration)
    restore_storage(restored, saved_and_loaded(storage_state(storage)))
    assert repr(restored.history("loss").values()) == repr(storage.history("loss").values())


def test_an_empty_storage_and_an_asked_for_name_make_an_empty_state():
    storage = EventStorage(0)
    storage.histories()["never put"]  # creates it, as the dict of Detectron2 does
    state = storage_state(storage)
    assert state == {"scalars": {}}
    restore_storage(storage, {})
    assert storage.latest() == {}
