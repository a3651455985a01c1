"""Two trainings never write into one folder; locks of what has ended stop nobody."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from retinanet_ext.engine.launch.output_lock import LOCK, hold_output_dir, release_output_dir
from retinanet_ext.engine.launch.restarts import Starts
from retinanet_ext.errors import InputError


@pytest.fixture(autouse=True)
def released():
    yield
    release_output_dir()


@pytest.fixture
def other():
    """A process that runs."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    yield process
    process.kill()
    process.communicate()


def lock(folder: Path, pid: int, **entries: object) -> None:
    content = {"host": socket.gethostname(), "pid": pid, "since": "then", **entries}
    (folder / LOCK).write_text(json.dumps(content))


def holder(folder: Path) -> int:
    return json.loads((folder / LOCK).read_text())["pid"]


def test_the_folder_is_held_until_it_is_released(tmp_path: Path):
    folder = tmp_path / "new"
    assert hold_output_dir(str(folder)) == "" and holder(folder) == os.getpid()
    assert hold_output_dir(str(folder)) == ""  # again in the same process
    release_output_dir()
    assert not (folder / LOCK).exists()


def test_a_running_training_is_named_and_force_takes_its_place(tmp_path: Path, other):
    lock(tmp_path, other.pid)
    with pytest.raises(InputError, match=rf"process {other.pid} on .* since then; .*--force"):
        hold_output_dir(str(tmp_path))
    assert holder(tmp_path) == other.pid
    assert str(other.pid) in hold_output_dir(str(tmp_path), force=True)
    assert holder(tmp_path) == os.getpid()


def test_the_lock_of_a_process_that_ended_here_is_taken_over(tmp_path: Path, other):
    other.kill()
    other.wait()
    lock(tmp_path, other.pid)
    assert "takes its place" in hold_output_dir(str(tmp_path)) and holder(tmp_path) == os.getpid()


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
def test_a_later_process_of_the_same_number_is_not_the_training(tmp_path: Path, other):
    lock(tmp_path, other.pid, started=1)
    hold_output_dir(str(tmp_path))
    assert holder(tmp_path) == os.getpid()


def test_another_machine_cannot_be_asked(tmp_path: Path):
    lock(tmp_path, 1, host="elsewhere")
    with pytest.raises(InputError, match="process 1 on elsewhere"):
        hold_output_dir(str(tmp_path))


def test_a_later_start_of_the_same_job_takes_over_from_any_machine(tmp_path: Path):
    lock(tmp_path, 1, host="elsewhere", job=["Slurm job 5, start 0"])
    names = frozenset(["Slurm job 5, start 0"])
    hold_output_dir(str(tmp_path), Starts(frozenset(["Slurm job 5, start 1"]), names))
    assert holder(tmp_path) == os.getpid()


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"pid": "x"}'])
def test_a_damaged_lock_stops_nobody(tmp_path: Path, text: str):
    (tmp_path / LOCK).write_text(text)
    hold_output_dir(str(tmp_path))
    assert holder(tmp_path) == os.getpid()


def test_a_lock_that_another_took_is_not_removed(tmp_path: Path, other):
    hold_output_dir(str(tmp_path))
    lock(tmp_path, other.pid)
    release_output_dir()
    assert holder(tmp_path) == other.pid


def test_a_folder_that_cannot_be_written_is_left_to_others_to_tell(tmp_path: Path):
    (tmp_path / "file").touch()
    assert hold_output_dir(str(tmp_path / "file" / "output")) == ""
    assert hold_output_dir("s3://bucket/output") == ""
