"""Items shared out among threads that PyTorch does not split any further."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

from retinanet_ext.cores import on_one_thread, parallel_map, threads_side_by_side

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(params=[1, 3])
def num_threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def test_results_come_in_the_order_of_the_items(num_threads):
    def work(item: int) -> int:
        time.sleep(0.001 * (item % 3))
        return item * item

    assert parallel_map(range(20), lambda: work) == [item * item for item in range(20)]


def test_no_items_give_no_results(num_threads):
    assert parallel_map([], lambda: abs) == []


def test_each_thread_makes_its_own_worker(num_threads):
    made, seen = [], set()
    all_here = threading.Barrier(num_threads)

    def make():
        made.append(threading.get_ident())
        all_here.wait()  # so that no thread is through before the others have begun
        return lambda _: seen.add(threading.get_ident())

    parallel_map(range(50), make)
    assert len(made) == len(set(made)) == num_threads
    assert seen <= set(made)


def test_operations_in_a_thread_are_not_split_and_the_callers_still_are(num_threads):
    counts = parallel_map(range(6), lambda: lambda _: torch.get_num_threads())
    assert counts == [1] * 6
    assert torch.get_num_threads() == num_threads


def test_nothing_has_a_gradient(num_threads):
    x = torch.ones(4, requires_grad=True)
    doubled = parallel_map(x.unbind(), lambda: lambda part: part * 2)
    assert not any(part.requires_grad for part in doubled)


def test_tensors_of_inference_mode_can_be_changed(num_threads):
    with torch.inference_mode():
        x = torch.zeros(4)
        parallel_map(range(4), lambda: lambda i: x[i].add_(i))
        assert x.tolist() == [0, 1, 2, 3]


def test_an_error_in_a_thread_reaches_the_caller(num_threads):
    with pytest.raises(ZeroDivisionError):
        parallel_map([1, 0, 2], lambda: lambda item: 1 // item)
    assert parallel_map([1, 2], lambda: lambda item: item) == [1, 2]  # and the threads go on


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_process_starts_threads_of_its_own(num_threads):
    parallel_map([1, 2], lambda: abs)
    child = os.fork()
    if child == 0:
        try:
            threading.Timer(10, os._exit, [2]).start()
            os._exit(0 if parallel_map([-1, -2], lambda: abs) == [1, 2] else 1)
        finally:
            os._exit(3)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


WAITING = """
import sys, time, torch
from retinanet_ext.cores import let_openmp_wait_briefly
torch.set_num_threads(2)
if sys.argv[1] == "briefly":
    let_openmp_wait_briefly()
numbers, waited = torch.zeros(2**18), 0.0
for _ in range(20):
    numbers.add_(1)
    before = time.process_time()
    time.sleep(0.02)
    waited += time.process_time() - before
print(waited)
"""


def test_threads_of_openmp_stop_waiting_actively():
    # CPU time of a process of its own, which other processes do not change.
    def waited(how: str) -> float:
        command = [sys.executable, "-c", WAITING, how]
        return float(subprocess.run(command, capture_output=True, check=True, cwd=ROOT).stdout)

    usual = waited("usual")
    if usual < 0.02:
        pytest.skip("this OpenMP does not wait actively here")
    assert waited("briefly") < usual / 3


def test_threads_may_ask_for_threads():
    pools = [threads_side_by_side(2, each=2), threads_side_by_side(2)]
    inner = [pools[0].submit(threads_side_by_side, 2).result() for _ in range(4)]
    assert all(pool not in pools for pool in inner)

    def nested(_: int) -> list[int]:
        return parallel_map(range(4), lambda: abs)

    assert list(pools[0].map(nested, range(8))) == [[0, 1, 2, 3]] * 8


def test_the_caller_takes_items_too(num_threads):
    if num_threads == 1:
        pytest.skip("the caller computes everything")
    all_here = threading.Barrier(num_threads)

    def work(_: int) -> int:
        all_here.wait(timeout=60)
        return threading.get_ident()

    seen = set(parallel_map(range(num_threads), lambda: work, with_caller=True))
    assert threading.get_ident() in seen and len(seen) == num_threads


@pytest.mark.parametrize("gradients", [True, False])
@pytest.mark.parametrize("inference", [True, False])
def test_work_on_one_thread_is_not_split_and_else_as_for_the_caller(
    num_threads, inference: bool, gradients: bool
):
    def work() -> tuple[int, bool, bool]:
        return torch.get_num_threads(), torch.is_inference_mode_enabled(), torch.is_grad_enabled()

    with torch.inference_mode(inference), torch.set_grad_enabled(gradients):
        assert on_one_thread(work) == (1, *work()[1:])
    assert torch.get_num_threads() == num_threads


def test_an_error_on_one_thread_reaches_the_caller(num_threads):
    with pytest.raises(ZeroDivisionError):
        on_one_thread(lambda: 1 // 0)
