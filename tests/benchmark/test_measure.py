"""Rounds are interleaved, and memory is what the work took."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from retinanet_ext.benchmark import measure
from retinanet_ext.benchmark.measure import clocked_rounds, peak_memory, timed_rounds

MIB = 2**20


def test_sides_take_turns_and_warm_up_first():
    calls: list[str] = []
    works = {name: lambda name=name: calls.append(name) for name in ("ours", "theirs")}
    samples = timed_rounds(works, repeats=3, device="cpu")
    rounds = measure.WARM_UP_ROUNDS + 3
    assert calls == ["ours", "theirs"] * rounds
    assert [len(samples[name]) for name in works] == [3, 3]
    assert all(value >= 0 for one in samples.values() for value in one)


def test_quick_work_is_repeated_up_to_a_limit():
    samples = timed_rounds({"a": lambda: None}, repeats=None, device="cpu")
    assert len(samples["a"]) == measure.MAX_ROUNDS


def test_cpu_time_is_of_the_work_and_not_of_waiting(monkeypatch):
    now = {"clock": 0.0, "cpu": 0.0}
    monkeypatch.setattr(measure.time, "perf_counter", lambda: now["clock"])
    monkeypatch.setattr(measure.time, "process_time", lambda: now["cpu"])
    works = {
        "waits": lambda: now.update(clock=now["clock"] + 3),
        "works": lambda: now.update(clock=now["clock"] + 2, cpu=now["cpu"] + 4),
    }
    samples = clocked_rounds(works, repeats=2, device="cpu")
    assert samples == {"waits": ((3, 0), (3, 0)), "works": ((2, 4), (2, 4))}


def test_slow_work_is_repeated_less(monkeypatch):
    monkeypatch.setattr(measure, "SLOW_ROUND", -1.0)
    monkeypatch.setattr(measure, "ENOUGH_SECONDS", -1.0)
    calls: list[int] = []
    samples = timed_rounds({"a": lambda: calls.append(1)}, repeats=None, device="cpu")
    assert len(samples["a"]) == measure.MIN_SLOW_ROUNDS
    assert len(calls) == measure.MIN_SLOW_ROUNDS + 1


def test_peak_counts_what_was_freed_again():
    kept = torch.ones(8 * MIB // 4)

    def work() -> None:
        a = torch.ones(40 * MIB // 4)
        del a
        torch.ones(16 * MIB // 4)

    peak = peak_memory(work, "cpu")
    # The C library may keep the first tensor's memory while it takes that of the second.
    assert 39 * MIB < peak.num_bytes < 60 * MIB, peak
    assert len(kept) > 0


@pytest.mark.skipif(measure._proc_status("VmHWM") is None, reason="an earlier peak hides a later")
def test_peak_of_an_earlier_call_does_not_count():
    # In a process of its own, as the command does: what other tests left to the C library counts.
    script = (
        "import torch\n"
        "from retinanet_ext.benchmark.measure import peak_memory\n"
        "sizes = [60, 20]\n"
        "def work():\n"
        "    torch.ones(sizes.pop(0) * 2**20 // 4)\n"
        "peak = peak_memory(work, 'cpu', warm_ups=1)\n"
        "print(len(sizes), peak.num_bytes // 2**20)\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script], capture_output=True, text=True, check=True
    )
    left, mib = map(int, done.stdout.split()[-2:])
    assert left == 0 and 19 <= mib < 40


def test_without_a_way_to_forget_the_peak_it_is_a_lower_bound(monkeypatch):
    monkeypatch.setattr(measure, "_forget_peak", lambda: False)
    peak = peak_memory(lambda: None, "cpu")
    assert "lower bound" in peak.method and peak.num_bytes >= 0


@pytest.mark.cuda(needs="the figures of CUDA's allocator")
def test_cuda_peak_is_the_allocators():
    peak = peak_memory(lambda: torch.ones(32 * MIB // 4, device="cuda"), "cuda")
    assert peak.num_bytes == 32 * MIB
