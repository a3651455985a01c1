"""A signal ends a run within one iteration, saved, with the exit code that its sender expects."""

import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
import weakref
from pathlib import Path

import pytest
import torch
from detectron2.engine import HookBase, TrainerBase
from torch.multiprocessing import ProcessExitedException
from torch.utils.data import DataLoader, Dataset

from retinanet_ext.engine.checkpoint.checkpointer import SafeCheckpointer
from retinanet_ext.engine.checkpoint.hook import CheckpointHook
from retinanet_ext.engine.launch import stopping
from retinanet_ext.engine.launch.signals import forwarded_signals
from retinanet_ext.engine.launch.stopping import StopHook, StopSignals, TrainingStopped
from retinanet_ext.errors import TrainingFailed
from tests.helpers.two_ranks import run_on_two_ranks

ROOT = Path(__file__).resolve().parents[3]
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP)
CODES = [(signal.SIGTERM, 0), (signal.SIGINT, 130), (signal.SIGUSR1, 0), (signal.SIGHUP, 0)]


@pytest.fixture(autouse=True)
def default_handlers():
    """Start as in a terminal, and see that each test leaves the handlers as they were."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    at_start = [signal.getsignal(number) for number in SIGNALS]
    yield
    assert [signal.getsignal(number) for number in SIGNALS] == at_start
    for number, handler in before.items():
        signal.signal(number, handler)


class Training(TrainerBase):
    """Counts iterations in its weight; saves only when asked, or every ``period`` iterations."""

    def __init__(self, folder, period=1000, before=(), after=(), signals=None, **call):
        super().__init__()
        self.model = torch.nn.Linear(1, 1, bias=False)
        torch.nn.init.zeros_(self.model.weight)
        self.checkpointer = SafeCheckpointer(self.model, str(folder), trainer=weakref.proxy(self))
        self.hook = CheckpointHook(self.checkpointer, period)
        self.stop = StopHook(self.hook.save_now, lambda: self.hook.is_saved, signals)
        self.register_hooks([*before, self.hook, self.stop, *after])

    def run_step(self):
        with torch.no_grad():
            self.model.weight += 1


class Send(HookBase):
    """Sends a signal to this process before or after the step of an iteration."""

    def __init__(self, when, iteration, *numbers):
        self.when, self.iteration, self.numbers = when, iteration, numbers

    def _send(self, when):
        if when == self.when and self.trainer.iter == self.iteration:
            for number in self.numbers:
                signal.raise_signal(number)

    def before_step(self):
        self._send("before")

    def after_step(self):
        self._send("after")

    def after_train(self):
        self._send("end")


def saved_steps(folder):
    """Checkpoint -> steps in its weight, which its iteration agrees with."""
    found = {}
    for path in sorted(folder.glob("*.pth")):
        content = torch.load(path, weights_only=True)
        found[path.stem] = int(content["model"]["weight"].item())
        assert content["iteration"] == content["trainer"]["iteration"] == found[path.stem] - 1
    return found


@pytest.mark.parametrize("number, code", CODES)
def test_a_signal_in_a_step_stops_after_it_saved(tmp_path, caplog, number, code):
    with caplog.at_level(logging.INFO), pytest.raises(TrainingStopped) as stopped:
        Training(tmp_path, before=[Send("before", 3, number)]).train(0, 9)
    assert stopped.value.code == code and isinstance(stopped.value, SystemExit)
    assert saved_steps(tmp_path) == {"model_0000003": 4}
    name = signal.Signals(number).name
    last = (
        f"{name}: saved {tmp_path / 'model_0000003.pth'} at iteration 3; add --resume to continue"
    )
    assert caplog.messages.count(last) == 1
    assert "Exception during training" not in caplog.text


def test_a_state_that_is_saved_is_not_saved_again(tmp_path, caplog):
    with caplog.at_level(logging.INFO), pytest.raises(TrainingStopped):
        Training(tmp_path, period=4, before=[Send("after", 3, signal.SIGTERM)]).train(0, 9)
    assert sum("saving checkpoint" in message for message in caplog.messages) == 1
    assert saved_steps(tmp_path) == {"model_0000003": 4}


def test_other_hooks_are_closed_but_begin_nothing(tmp_path):
    calls = []

    class Recorder(HookBase):
        def after_step(self):
            calls.append(self.trainer.iter)

        def after_train(self):
            calls.append("closed")

    with pytest.raises(TrainingStopped):
        Training(tmp_path, before=[Send("before", 2, signal.SIGTERM)], after=[Recorder()]).train(
            0, 9
        )
    assert calls == [0, 1, "closed"]


def test_a_signal_in_an_evaluation_ends_it_if_the_state_is_saved(tmp_path):
    calls = []

    class Recorder(HookBase):
        def after_step(self):
            calls.append(self.trainer.iter)

    evaluation = [Send("after", 3, signal.SIGTERM), Recorder()]
    with pytest.raises(TrainingStopped):
        Training(tmp_path, period=4, after=evaluation).train(0, 9)
    assert calls == [0, 1, 2] and saved_steps(tmp_path) == {"model_0000003": 4}
    # Else the next step is made and saved: what was interrupted may not be fit for saving.
    with pytest.raises(TrainingStopped):
        Training(tmp_path, period=9, after=evaluation).train(0, 9)
    assert saved_steps(tmp_path) == {"model_0000003": 4, "model_0000004": 5}


def test_a_signal_before_the_first_step_stops_at_once(tmp_path):
    class Early(HookBase):
        def before_train(self):
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(TrainingStopped) as stopped:
        Training(tmp_path, after=[Early()]).train(0, 9)
    assert stopped.value.code == 0 and not saved_steps(tmp_path)


def test_signals_around_the_training_are_heeded_to_its_very_end(tmp_path):
    signals = StopSignals()
    training = Training(tmp_path, signals=signals, after=[Send("end", 5, signal.SIGINT)])
    with pytest.raises(TrainingStopped) as stopped, signals:
        training.train(0, 5)
    assert stopped.value.code == 130 and saved_steps(tmp_path) == {"model_final": 5}
    assert not signals.is_entered


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_the_same_signal_twice_is_one(tmp_path, number):
    with pytest.raises(TrainingStopped):
        Training(tmp_path, before=[Send("before", 2, number, number)]).train(0, 9)
    assert saved_steps(tmp_path) == {"model_0000002": 3}


def test_a_second_interrupt_aborts_at_once(tmp_path, monkeypatch):
    with pytest.raises(TrainingStopped):  # Ctrl-C that arrives twice
        Training(tmp_path, before=[Send("before", 2, signal.SIGINT, signal.SIGINT)]).train(0, 9)
    monkeypatch.setattr(stopping, "REPEAT_SECONDS", -1.0)
    with pytest.raises(KeyboardInterrupt):
        Training(tmp_path, before=[Send("before", 5, signal.SIGINT, signal.SIGINT)]).train(0, 9)
    assert saved_steps(tmp_path) == {"model_0000002": 3}


def test_where_saving_fails_the_exit_code_says_so(tmp_path, caplog):
    training = Training(tmp_path / "file" / "output", before=[Send("before", 2, signal.SIGTERM)])
    (tmp_path / "file").touch()
    with pytest.raises(TrainingStopped) as stopped:
        training.train(0, 9)
    assert stopped.value.code == 1 and "stopped at iteration 2, which is not saved" in caplog.text


def train_with_a_signal_on_rank_1(rank, folder):
    sends = [Send("before", 4, signal.SIGINT)] if rank == 1 else []
    try:
        Training(folder, before=sends).train(0, 9)
    except TrainingStopped as stopped:
        return stopped.code
    return None


def test_a_signal_to_one_process_stops_all_in_the_same_iteration(tmp_path):
    assert run_on_two_ranks(train_with_a_signal_on_rank_1, tmp_path) == [130, 130]
    assert saved_steps(tmp_path) == {"model_0000004": 5}


def train_until_a_signal(rank, folder, receiver, delay):
    """Train on, until the process ``receiver`` gets SIGUSR1, wherever that finds it."""
    if rank == receiver:
        process = os.getpid()
        threading.Timer(delay, lambda: os.kill(process, signal.SIGUSR1)).start()
    training = Training(folder, period=10**9)
    try:
        training.train(0, 10**6)
    except TrainingStopped as stopped:
        return stopped.code, training.iter
    return None


@pytest.mark.parametrize("receiver", [0, 1])
@pytest.mark.parametrize("delay", [0.3, 0.45])
def test_sigusr1_to_one_of_two_processes_saves_and_stops_both(tmp_path, receiver, delay):
    first, second = run_on_two_ranks(train_until_a_signal, tmp_path, receiver, delay)
    assert first == second and first[0] == 0
    assert saved_steps(tmp_path) == {f"model_{first[1]:07d}": first[1] + 1}


def test_a_signal_that_was_ignored_stays_ignored(tmp_path):
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        Training(tmp_path, before=[Send("before", 1, signal.SIGTERM)]).train(0, 3)
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, before)
    assert saved_steps(tmp_path) == {"model_final": 3}


def test_outside_of_the_main_thread_signals_are_left_alone(tmp_path):
    training = Training(tmp_path)
    thread = threading.Thread(target=training.train, args=(0, 3))
    thread.start()
    thread.join()
    assert saved_steps(tmp_path) == {"model_final": 3}


class Items(Dataset):
    def __len__(self):
        return 10**6

    def __getitem__(self, index):
        time.sleep(0.005)
        return index


class Loading(Training):
    """Takes its batches from two worker processes; ``ready`` is set when some have come."""

    def __init__(self, folder, ready):
        super().__init__(folder)
        self.ready, self.batches = ready, None

    def run_step(self):
        if self.batches is None:
            loader = DataLoader(
                Items(), batch_size=2, num_workers=2, multiprocessing_context="fork"
            )
            self.batches = iter(loader)
        next(self.batches)
        super().run_step()
        if self.iter == 5:
            self.ready.set()


def train_in_own_group(folder, ready):
    os.setsid()
    log = os.open(folder / "log.txt", os.O_CREAT | os.O_WRONLY)
    os.dup2(log, 1)
    os.dup2(log, 2)
    Loading(folder, ready).train(0, 10**6)


@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGUSR1, 0)])
def test_signals_to_the_whole_group_spare_the_workers_of_the_data_loader(tmp_path, number, code):
    context = multiprocessing.get_context("fork")
    ready = context.Event()
    process = context.Process(target=train_in_own_group, args=(tmp_path, ready))
    process.start()
    try:
        assert ready.wait(30)
        os.killpg(process.pid, number)  # as the terminal does on Ctrl-C
        process.join(30)
    finally:
        process.kill()
    log = (tmp_path / "log.txt").read_text()
    assert process.exitcode == code, log
    assert len(saved_steps(tmp_path)) == 1
    assert "Traceback" not in log and log.count("stopping with this step") == 1


def test_a_parent_without_children_takes_signals_as_before():
    with pytest.raises(KeyboardInterrupt), forwarded_signals():
        signal.raise_signal(signal.SIGINT)
    with forwarded_signals(active=False):
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_children_of_before_are_not_the_launchers():
    context = multiprocessing.get_context("fork")
    started = context.Event()
    child = context.Process(target=wait, args=(started,))
    child.start()
    try:
        assert started.wait(30)
        with pytest.raises(KeyboardInterrupt), forwarded_signals():
            signal.raise_signal(signal.SIGINT)
        child.join(0.2)
        assert child.is_alive()
    finally:
        child.kill()
        child.join()


def wait(started):
    started.set()
    time.sleep(30)


@pytest.mark.parametrize("code, expected", [(0, None), (130, 130), (1, 1), (-15, 143)])
def test_a_parent_ends_with_the_code_of_its_children(code, expected):
    def launch(number):
        context = multiprocessing.get_context("fork")
        started = context.Event()
        child = context.Process(target=wait, args=(started,))
        child.start()
        assert started.wait(30)
        os.kill(os.getpid(), number)
        child.join(30)
        assert child.exitcode == -number
        if code:
            raise ProcessExitedException("", 0, 0, code)

    if expected is None:
        with forwarded_signals():
            launch(signal.SIGTERM)
        return
    with pytest.raises(SystemExit) as stopped, forwarded_signals():
        launch(signal.SIGTERM)
    assert stopped.value.code == expected


@pytest.mark.parametrize(
    "code, name, words",
    [(-9, "SIGKILL", "was killed by SIGKILL, mostly.*memory"), (7, None, "ended with code 7")],
)
def test_children_that_die_without_a_signal_to_the_parent_are_an_error(code, name, words):
    expected = pytest.raises(TrainingFailed, match=rf"process 1 of this job {words}")
    with expected, forwarded_signals():
        raise ProcessExitedException("", 1, 0, code, name)


SCRIPT = """
import sys, time
from pathlib import Path
import torch
from detectron2.engine import launch
from detectron2.utils import comm
sys.path.insert(0, {root!r})
from retinanet_ext.engine.launch.child_errors import leave_group
from retinanet_ext.engine.launch.signals import forwarded_signals
from tests.engine.launch.test_stopping import Training

class Slow(Training):
    def run_step(self):
        time.sleep(0.01)
        super().run_step()
        if self.iter == 3:
            Path(sys.argv[1], f"ready_{{comm.get_rank()}}").touch()

def main():
    save = Slow(sys.argv[1])
    if comm.is_main_process():  # the other must not end while it saves
        save_checkpoint = save.checkpointer.save
        save.checkpointer.save = lambda *a, **k: (time.sleep(1), save_checkpoint(*a, **k))
    try:
        save.train(0, 10**6)
    except SystemExit:
        leave_group()
        raise
    raise SystemExit("not stopped")

if __name__ == "__main__":
    import signal
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with forwarded_signals():
        launch(main, 2, dist_url="auto")
    print("after")
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "number, group, code", [(signal.SIGTERM, False, 0), (signal.SIGINT, True, 130)]
)
def test_launched_processes_stop_together_and_the_parent_after_them(tmp_path, number, group, code):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(root=str(ROOT)))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-W", "ignore", str(script), str(tmp_path)]
    process = subprocess.Popen(
        command, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        end = time.monotonic() + 600
        while len(list(tmp_path.glob("ready_*"))) < 2 and process.poll() is None:
            assert time.monotonic() < end
            time.sleep(0.05)
        (os.killpg if group else os.kill)(process.pid, number)
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == code, errors
    assert len(saved_steps(tmp_path)) == 1 and "Traceback" not in errors
    assert errors.count("stopping with this step") == 1
