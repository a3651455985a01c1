"""What a run writes, killed and resumed, against what it writes uninterrupted."""

from __future__ import annotations

import contextlib
import copy
import errno
import json
import logging
import random
from pathlib import Path

import pytest
from detectron2.engine import HookBase, TrainerBase
from detectron2.utils.events import EventStorage, JSONWriter

from retinanet_ext.engine.progress import ProgressLine
from retinanet_ext.engine.records import hook
from retinanet_ext.engine.records import writers as writers_module
from retinanet_ext.engine.records.event_state import restore_storage, storage_state
from retinanet_ext.engine.records.hook import WriterHook
from retinanet_ext.engine.records.writers import MetricsFile, TensorBoard

STEPS, CHECKPOINT_PERIOD, EVAL_PERIOD, WRITE_PERIOD = 23, 6, 4, 3


class Killed(BaseException):
    """What kill -9 is to these tests: nothing runs after it."""


class Saves(HookBase):
    """Puts what a checkpoint would hold into a dict, which outlives the trainer."""

    def __init__(self, disk: dict, period: int):
        self._disk = disk
        self._period = period

    def after_step(self):
        if (self.trainer.iter + 1) % self._period == 0:
            self.save()

    def save(self):
        self._disk["trainer"] = copy.deepcopy(self.trainer.state_dict())
        self._disk["storage"] = storage_state(self.trainer.storage)


class Evaluates(HookBase):
    """An evaluation after the checkpoint of its iteration, made up for by a resumed run."""

    def before_train(self):
        start = self.trainer.start_iter
        if start and start % EVAL_PERIOD == 0:
            self.evaluate(start - 1)

    def after_step(self):
        if (self.trainer.iter + 1) % EVAL_PERIOD == 0:
            self.evaluate(self.trainer.iter)

    def evaluate(self, iteration):
        value = random.Random(-iteration).random()
        self.trainer.storage.put_scalar("bbox/AP", value, smoothing_hint=False, cur_iter=iteration)


class Kills(HookBase):
    """Ends the run after a step, at this hook's place among the others."""

    def __init__(self, iteration, error):
        self._iteration, self._error = iteration, error

    def after_step(self):
        if self.trainer.iter == self._iteration:
            raise self._error


class Run(TrainerBase):
    """Iterations that only put scalars."""

    def __init__(self, folder: Path, disk: dict, kill=None, period: int = CHECKPOINT_PERIOD):
        super().__init__()
        saves = Saves(disk, period)
        files = [ProgressLine(STEPS, 4), MetricsFile(folder / "metrics.json")]
        hooks = [saves, Evaluates(), WriterHook(files, WRITE_PERIOD)]
        if kill is not None:
            place, iteration, error = kill
            hooks.insert(place, Kills(iteration, error))
        self.register_hooks(hooks)
        self._disk = disk
        self._killed = False

    def run_step(self):
        rng = random.Random(self.iter)
        self.storage.put_scalars(total_loss=rng.random(), time=rng.random())
        self.storage.put_scalar("data_time", 0.1)
        self.storage.put_scalar("lr", rng.random(), smoothing_hint=False)
        if self.iter % 5 == 1:
            self.storage.put_scalar("now and then", rng.random(), smoothing_hint=False)

    def before_train(self):
        if self._disk:
            restore_storage(self.storage, self._disk["storage"])
        super().before_train()

    def after_train(self):
        if not self._killed:
            super().after_train()

    def go(self):
        start = 0
        if self._disk:
            self.load_state_dict(self._disk["trainer"])
            start = self.iter + 1
        self.train(start, STEPS)

    def after_step(self):
        try:
            super().after_step()
        except Killed:
            self._killed = True
            raise


def lines_of(folder: Path) -> list[str]:
    return (folder / "metrics.json").read_text().splitlines()


def no_space(*_):
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> list[str]:
    """The lines of the run that nothing interrupts."""
    folder = tmp_path_factory.mktemp("whole")
    Run(folder, {}).go()
    return lines_of(folder)


@pytest.mark.parametrize("place", range(4), ids=["step", "save", "evaluation", "write"])
@pytest.mark.parametrize("error", [Killed, RuntimeError])
def test_a_run_that_is_stopped_and_resumed_leaves_the_same_lines(tmp_path, whole, place, error):
    for iteration in range(place % 2, STEPS, 2 if error is Killed else 5):
        folder, disk = tmp_path / str(iteration), {}
        folder.mkdir()
        with pytest.raises(error):
            Run(folder, disk, (place, iteration, error())).go()
        Run(folder, disk).go()
        assert lines_of(folder) == whole, f"stopped at {iteration}"


@pytest.mark.parametrize("period", [2, CHECKPOINT_PERIOD])
def test_a_run_that_is_killed_again_and_again_leaves_the_same_lines(tmp_path, whole, period):
    rng, disk = random.Random(0), {}
    for _ in range(30):
        kill = (
            disk["trainer"]["iteration"] + rng.randrange(1, period + 3)
            if disk
            else rng.randrange(9)
        )
        with contextlib.suppress(Killed):
            Run(tmp_path, disk, (rng.randrange(4), kill, Killed()), period).go()
        with (tmp_path / "metrics.json").open("a") as file:
            file.write('{"iteration": 2, "lo')  # a write that the kill cut off
    Run(tmp_path, disk, period=period).go()
    assert lines_of(tmp_path) == whole


def test_a_stop_that_saves_leaves_its_last_line_until_the_run_goes_on(tmp_path, whole):
    disk: dict = {}
    run = Run(tmp_path, disk)
    stop = Kills(9, SystemExit(0))
    stop.after_step = lambda: run.iter == 9 and (Saves.save(run._hooks[0]), Kills.after_step(stop))
    run.register_hooks([stop])
    with pytest.raises(SystemExit):
        run.go()
    assert json.loads(lines_of(tmp_path)[-1])["iteration"] == 9
    Run(tmp_path, disk).go()
    assert lines_of(tmp_path) == whole


def test_lines_are_those_of_detectron2(tmp_path, whole):
    with EventStorage(0) as storage:
        ours, theirs = MetricsFile(tmp_path / "ours"), JSONWriter(str(tmp_path / "theirs"))
        for iteration in range(45):
            storage.iter = iteration
            storage.put_scalar("loss", random.Random(iteration).random())
            storage.put_scalar("lr", 0.1, smoothing_hint=False)
            if iteration % 20 == 19:
                ours.write()
                theirs.write()
    assert (tmp_path / "ours").read_text() == (tmp_path / "theirs").read_text()
    assert len(whole) > STEPS // WRITE_PERIOD


def test_a_damaged_file_is_named_and_kept_aside(tmp_path, whole, caplog):
    disk: dict = {}
    with pytest.raises(Killed):
        Run(tmp_path, disk, (0, 17, Killed())).go()
    path = tmp_path / "metrics.json"
    lines = path.read_bytes().splitlines(keepends=True)
    damaged = b"".join([lines[0], b"\x00\xff broken\n", b'{"iteration": NaN}\n', *lines[1:]])
    path.write_bytes(damaged)
    with caplog.at_level(logging.WARNING):
        Run(tmp_path, disk).go()
    assert lines_of(tmp_path) == whole
    assert (tmp_path / "metrics_1.json").read_bytes() == damaged
    [text] = [x.getMessage() for x in caplog.records if x.levelno >= logging.WARNING]
    assert f"{path} has 2 damaged line(s), the first is line 2" in text and "metrics_1" in text


def test_other_processes_write_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(hook.comm, "is_main_process", lambda: False)
    Run(tmp_path, {}).go()
    assert list(tmp_path.iterdir()) == []


def test_an_earlier_runs_file_is_kept_aside(tmp_path, whole, caplog):
    for _ in range(3):
        with caplog.at_level(logging.INFO):
            Run(tmp_path, {}).go()
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "metrics.json",
        "metrics_1.json",
        "metrics_2.json",
    ]
    assert all(p.read_text().splitlines() == whole for p in tmp_path.iterdir())
    assert caplog.text.count("of an earlier run is kept as metrics_") == 2


def test_a_trainer_that_trains_twice_writes_two_files(tmp_path, whole):
    disk: dict = {}
    run = Run(tmp_path, disk)
    run.go()
    disk.clear()
    run.go()
    assert lines_of(tmp_path) == whole
    assert (tmp_path / "metrics_1.json").read_text().splitlines() == whole


def test_a_checkpoint_of_another_trainer_keeps_the_lines_before_it(tmp_path):
    (tmp_path / "metrics.json").write_text('{"iteration": 7}\n{"iteration": 11}\n{"itera')
    writer = MetricsFile(tmp_path / "metrics.json")
    hook = WriterHook([writer], WRITE_PERIOD)
    run = Run(tmp_path, {})
    run._hooks.clear()
    run.register_hooks([hook])
    run.train(10, 10)
    assert lines_of(tmp_path) == ['{"iteration": 7}']


def test_what_is_written_before_the_first_step_leaves_the_iteration_as_it_was(tmp_path):
    disk: dict = {}
    with pytest.raises(Killed):
        Run(tmp_path, disk, (3, 6, Killed())).go()
    run, seen = Run(tmp_path, disk), []

    class Looks(HookBase):
        def before_train(self):
            seen.append((len(lines_of(tmp_path)), self.trainer.storage.iter))

    run.register_hooks([Looks()])
    run.go()
    assert seen == [(4, 6)]  # iterations 1, 2, 3 and 5


def test_a_resume_that_fails_before_it_begins_leaves_the_lines_alone(tmp_path):
    class Fails(HookBase):
        def before_train(self):
            raise RuntimeError("no such device")

    disk: dict = {}
    with pytest.raises(Killed):
        Run(tmp_path, disk, (3, 7, Killed())).go()
    before, run = lines_of(tmp_path), Run(tmp_path, disk)
    run.register_hooks([Fails()])
    run._hooks.insert(0, run._hooks.pop())
    with pytest.raises(RuntimeError, match="no such device"):
        run.go()
    assert lines_of(tmp_path) == before


def test_numbers_that_are_not_finite_become_null(tmp_path):
    with EventStorage(3) as storage:
        storage.put_scalars(loss=float("nan"), grad=float("inf"), lr=0.5)
        MetricsFile(tmp_path / "metrics.json").write()

    def refuse(name):
        raise AssertionError(f"{name} is no JSON")

    line = json.loads(lines_of(tmp_path)[0], parse_constant=refuse)
    assert line == {"iteration": 3, "loss": None, "grad": None, "lr": 0.5}


class FullDisk:
    """A file that takes a few bytes more and then fails, as on a full disk."""

    def __init__(self, file):
        self._file = file

    def __getattr__(self, name):
        return getattr(self._file, name)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._file.close()

    def write(self, data):
        if len(data) <= 10:
            raise OSError(errno.ENOSPC, "No space left on device")
        return self._file.write(data[:10])


def test_a_full_disk_stops_nothing_and_nothing_is_lost(tmp_path, whole, monkeypatch, caplog):
    def opened(path, mode, **options):
        file = open(path, mode, **options)  # noqa: SIM115
        return FullDisk(file) if "a" in mode and full[0] else file

    full = [False]
    monkeypatch.setattr(writers_module, "open", opened, raising=False)

    class FillsUp(HookBase):
        def after_step(self):
            full[0] = 4 <= self.trainer.iter < 13

    run = Run(tmp_path, {})
    run.register_hooks([FillsUp()])
    with caplog.at_level(logging.INFO):
        run.go()
    assert lines_of(tmp_path) == whole
    errors = [r.getMessage() for r in caplog.records if r.levelno == logging.ERROR]
    assert len(errors) == 1 and "No space left on device" in errors[0]
    assert f"{tmp_path}/metrics.json" in errors[0]
    assert caplog.text.count("can be written again") == 1


def test_a_file_that_cannot_be_cut_yet_loses_no_line(tmp_path, whole, monkeypatch, caplog):
    disk: dict = {}
    with pytest.raises(Killed):
        Run(tmp_path, disk, (3, 13, Killed())).go()

    def fails(path, content):
        if failures:
            raise failures.pop()
        return replace(path, content)

    failures = [OSError(errno.ENOSPC, "No space left on device")]
    replace = writers_module.write_text
    monkeypatch.setattr(writers_module, "write_text", fails)
    Run(tmp_path, disk).go()
    assert lines_of(tmp_path) == whole and not failures


def points_of(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """The points that TensorBoard shows."""
    accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="reads TensorBoard's files"
    )
    events = accumulator.EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
    return {
        tag: [(e.step, round(e.value, 5)) for e in events.Scalars(tag)]
        for tag in events.Tags()["scalars"]
    }


def tensorboard_run(folder: Path, disk: dict, stop: int | None = None) -> None:
    run = Run(folder, disk, None if stop is None else (3, stop, Killed()))
    board = TensorBoard(folder)
    hooks = [
        WriterHook([board], WRITE_PERIOD) if isinstance(h, WriterHook) else h for h in run._hooks
    ]
    run._hooks.clear()
    run.register_hooks(hooks)
    with contextlib.suppress(Killed):
        run.go()
    board.close()  # a killed process would leave no thread


@pytest.mark.parametrize("stop", [0, 5, 6, 13, 22])
def test_tensorboard_shows_each_point_once_after_a_resume(tmp_path, stop):
    tensorboard_run(tmp_path / "whole", {})
    disk: dict = {}
    tensorboard_run(tmp_path / "resumed", disk, stop)
    # TensorBoard reads by name, which has the second and then a number; a test is too fast for it.
    for file in (tmp_path / "resumed").glob("events*"):
        file.rename(file.with_name("events.out.tfevents.1.first"))
    tensorboard_run(tmp_path / "resumed", disk)
    whole = points_of(tmp_path / "whole")
    assert points_of(tmp_path / "resumed") == whole
    assert len(whole["total_loss"]) == STEPS // WRITE_PERIOD + 1 and len(whole["bbox/AP"]) > 1


def test_tensorboard_begins_anew_after_an_error_of_the_disk(tmp_path, monkeypatch):
    board = TensorBoard(tmp_path)
    with EventStorage(0) as storage:
        for iteration in range(4):
            storage.iter = iteration
            storage.put_scalar("loss", iteration, smoothing_hint=False)
            if iteration == 1:
                monkeypatch.setattr(board._writer, "add_scalar", no_space)
                with pytest.raises(OSError, match="No space"):
                    board.write()
            else:
                board.write()
    board.close()
    assert points_of(tmp_path) == {"loss": [(0, 0.0), (2, 2.0), (3, 3.0)]}
