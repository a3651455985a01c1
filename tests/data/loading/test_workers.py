"""Worker processes and signals: only the main process ends them, and a death is told in time."""

import multiprocessing
import os
import select
import signal
import subprocess
import sys
import time

import pytest
from detectron2.utils.serialize import PicklableWrapper

from retinanet_ext.data.loading.stream import TrainStream

if sys.platform == "win32":
    pytest.skip("Windows has no such signals", allow_module_level=True)


def loading_pid(index):
    return os.getpid()


@pytest.fixture
def stream():
    stream = TrainStream(
        range(100), PicklableWrapper(loading_pid), lambda seed: range(100), 2, num_workers=1
    )
    yield stream
    stream.close()


def send(name, pid):
    """As another program does: the sender is not the worker's main process."""
    subprocess.run(["kill", f"-{name}", str(pid)], check=True)


def wait_for_death(pid):
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)  # and leave the rest to PyTorch


def test_a_killed_worker_is_told_at_once_and_only_where_a_batch_is_waited_for(stream):
    batches = iter(stream)
    (pid,) = set(next(batches))
    send("KILL", pid)
    wait_for_death(pid)
    time.sleep(0.05)  # the signal of its death arrives here, and raises nothing
    started = time.monotonic()
    with pytest.raises(RuntimeError, match=rf"DataLoader worker \(pid {pid}\) is killed by signal"):
        next(batches)
    assert time.monotonic() - started < 4  # of the five seconds between two looks of PyTorch
    assert stream.images == 2


def test_after_a_death_a_new_iterator_starts_with_the_batch_that_was_lost(stream):
    batches = iter(stream)
    (pid,) = set(next(batches))
    send("KILL", pid)
    wait_for_death(pid)
    with pytest.raises(RuntimeError, match="killed by signal"):
        next(batches)
    assert set(next(iter(stream))) != {pid} and stream.images == 4


def test_a_death_while_waiting_raises_at_once():
    def kill_own_process(index):
        os.kill(os.getpid(), signal.SIGKILL)

    stream = TrainStream(
        range(4), PicklableWrapper(kill_own_process), lambda seed: range(4), 2, num_workers=1
    )
    started = time.monotonic()
    with pytest.raises(RuntimeError, match=r"DataLoader worker \(pid.*unexpectedly") as caught:
        next(iter(stream))
    assert "killed by signal" in str(caught.value.__cause__)
    assert time.monotonic() - started < 4


def test_workers_outlive_signals_to_the_whole_job(stream):
    batches = iter(stream)
    (pid,) = set(next(batches))
    for name in ("TERM", "INT", "TERM"):
        send(name, pid)
    for _ in range(10):  # more than were loaded ahead
        assert set(next(batches)) == {pid}


def test_the_main_process_ends_them(stream):
    (pid,) = set(next(iter(stream)))
    (worker,) = [x for x in multiprocessing.active_children() if x.pid == pid]
    worker.terminate()
    worker.join(4)
    assert worker.exitcode == 0


def test_they_end_soon_after_a_main_process_that_was_killed(stream):
    reading, writing = os.pipe()
    main = os.fork()
    if main == 0:  # the main process of this worker
        next(iter(stream))
        os.kill(os.getpid(), signal.SIGKILL)
    os.close(writing)  # the worker has it too, as long as it lives
    _, status = os.waitpid(main, 0)
    assert os.WTERMSIG(status) == signal.SIGKILL
    ended, _, _ = select.select([reading], [], [], 4)  # PyTorch's worker looks every five seconds
    assert ended and os.read(reading, 1) == b""
    os.close(reading)


def test_closing_ends_them_while_somebody_holds_the_iterator(stream):
    batches = iter(stream)
    (pid,) = set(next(batches))
    stream.close()
    # Nothing waits for a garbage collection, as some versions of Python would.
    assert pid not in {x.pid for x in multiprocessing.active_children()}
    with pytest.raises(StopIteration):
        next(batches)


def test_closing_ends_them_and_leaves_the_handler_of_deaths_to_pytorch(stream):
    (pid,) = set(next(iter(stream)))
    stream.close()
    assert pid not in {x.pid for x in multiprocessing.active_children()}
    told = []
    handler = signal.getsignal(signal.SIGCHLD)
    previous, handler.of_torch = handler.of_torch, lambda *args: told.append(args)
    try:
        subprocess.run(["true"], check=True)
    finally:
        handler.of_torch = previous
    assert told
