"""Batches side by side: in their order, with the same numbers, and nothing left behind."""

from __future__ import annotations

import itertools
import threading
import time

import pytest
import torch
from torch import nn

from retinanet_ext.inference.detector import calls_may_overlap
from retinanet_ext.inference.streaming import lanes
from retinanet_ext.inference.streaming.lanes import in_lanes, num_lanes


@pytest.fixture(autouse=True)
def two_cores():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def in_new_thread(function):
    found = []
    thread = threading.Thread(target=lambda: found.append(function()))
    thread.start()
    thread.join()
    return found[0]


def test_results_come_in_order_whichever_is_done_first():
    def compute(i: int) -> int:
        time.sleep(0.02 if i % 2 == 0 else 0)
        return i

    assert list(in_lanes(compute, range(9), 2)) == list(range(9))
    assert list(in_lanes(compute, range(3), 1)) == [0, 1, 2]
    assert list(in_lanes(compute, [], 2)) == []


def test_two_are_computed_at_once_and_one_waits():
    both = threading.Barrier(2)
    taken = []

    def items():
        for i in itertools.count():
            taken.append(i)
            yield i

    def compute(i: int) -> str:
        both.wait(timeout=30)  # a third time only after the second one came
        return threading.current_thread().name

    stream = in_lanes(compute, items(), 2)
    names = {next(stream) for _ in range(4)}
    assert len(names) == 2 and threading.current_thread().name not in names
    assert len(taken) <= 4 + 3
    both.abort()
    stream.close()


def test_an_error_comes_in_the_place_of_its_result():
    def compute(i: int) -> int:
        if i == 2:
            raise ValueError("two")
        return i

    stream = in_lanes(compute, range(9), 2)
    assert [next(stream), next(stream)] == [0, 1]
    with pytest.raises(ValueError, match="two"):
        next(stream)


def test_each_computes_with_its_share_of_the_threads_and_the_callers_stay(monkeypatch):
    assert set(in_lanes(lambda _: torch.get_num_threads(), range(4), 2)) == {1}
    torch.set_num_threads(6)
    assert set(in_lanes(lambda _: torch.get_num_threads(), range(4), 2)) == {3}
    assert torch.get_num_threads() == in_new_thread(torch.get_num_threads) == 6


def test_each_computes_in_the_callers_precision():
    def dtype(_: int) -> torch.dtype:
        return (torch.ones(2, 2) @ torch.ones(2, 2)).dtype

    with torch.autocast("cpu", torch.bfloat16):
        assert set(in_lanes(dtype, range(3), 2)) == {torch.bfloat16}
    assert set(in_lanes(dtype, range(3), 2)) == {torch.float32}


class Remembers(nn.Module):
    """A module of one's own, which may keep what it likes."""


def test_only_models_that_keep_nothing_are_called_by_several_threads():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU())
    assert calls_may_overlap(model)
    hook = model[1].register_forward_hook(lambda *_: None)
    assert not calls_may_overlap(model)
    hook.remove()
    assert calls_may_overlap(model)
    assert not calls_may_overlap(nn.Sequential(model, Remembers()))
    model[0].compile(backend="eager")
    assert not calls_may_overlap(model)


@pytest.mark.parametrize(
    ("threads", "batch_size", "expected"), [(2, 8, 2), (1, 8, 1), (2, 1, 1), (16, 8, 4), (16, 3, 3)]
)
def test_lanes_share_cores_and_batch(monkeypatch, threads, batch_size, expected):
    class Overlapping:
        overlaps = True

    monkeypatch.setattr(lanes.torch, "get_num_threads", lambda: threads)
    assert num_lanes(Overlapping(), batch_size) == expected
    assert num_lanes(object(), batch_size) == 1
