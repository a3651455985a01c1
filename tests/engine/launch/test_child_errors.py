"""Errors of started processes arrive in the one that waits, as kind and message."""

from __future__ import annotations

import argparse
import contextlib
import errno
import os
import sys
from pathlib import Path

import pytest
import torch.distributed as dist
from detectron2.utils import comm
from torch.multiprocessing import ProcessRaisedException

from retinanet_ext.engine.failures.nonfinite import NonFiniteLoss
from retinanet_ext.engine.launch import child_errors
from retinanet_ext.engine.launch.child_errors import ChildReports
from retinanet_ext.engine.launch.launching import launch_job
from retinanet_ext.errors import InputError, TrainingFailed, UserError

MESSAGE = "TrainingFailed: and UserError: are words of this message"


def fail(args: argparse.Namespace) -> None:
    """Both processes meet, then the second fails in the way that the arguments name."""
    comm.synchronize()
    if comm.get_rank() == 0:
        comm.synchronize()  # waits for the second, which never comes
    if args.way == "user":
        raise InputError(MESSAGE)
    if args.way == "training":
        raise NonFiniteLoss("loss is nan\nin one process")
    if args.way == "file":
        Path("/nowhere/at all").read_text()
    raise ValueError("a bug, with spaces")


def launched(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))
    args = argparse.Namespace(
        num_gpus=2, num_machines=1, machine_rank=0, dist_url="auto", dist_timeout=2.0, way=way
    )
    launch_job(fail, args)


@pytest.mark.slow
@pytest.mark.parametrize(
    "way, kind, message",
    [
        ("user", UserError, MESSAGE),
        ("training", TrainingFailed, "loss is nan\nin one process"),
        ("file", UserError, "'/nowhere/at all': No such file or directory"),
    ],
)
def test_kind_and_message_arrive_whole(way, kind, message, monkeypatch):
    with pytest.raises(kind) as caught:
        launched(way, monkeypatch)
    assert str(caught.value) == message
    assert isinstance(caught.value.__cause__, ProcessRaisedException)  # for --debug


@pytest.mark.slow
def test_a_bug_in_a_process_shows_its_traceback(monkeypatch):
    with pytest.raises(ProcessRaisedException, match="ValueError: a bug, with spaces") as caught:
        launched("bug", monkeypatch)
    assert "in fail" in str(caught.value)


@pytest.fixture
def reports() -> ChildReports:
    return ChildReports()


def report(reports: ChildReports, error: Exception) -> None:
    def main(args: argparse.Namespace) -> None:
        raise error

    with pytest.raises(type(error)):
        reports.reporting(main)(argparse.Namespace())


def fails(reports: ChildReports, index: int) -> None:
    with reports.raised_here():
        raise ProcessRaisedException("text of a traceback", index, 1)


def test_a_mistake_in_one_process_is_told_though_another_fell_first(reports):
    report(reports, InputError("a mistake"))  # of process 0, as there is one only here
    with pytest.raises(UserError, match="a mistake"):
        fails(reports, 1)


def test_a_bug_is_not_hidden_by_what_it_made_fail_elsewhere(reports):
    report(reports, NonFiniteLoss("a consequence"))
    with pytest.raises(ProcessRaisedException, match="text of a traceback"):
        fails(reports, 1)


@pytest.mark.parametrize("index", [0, 1])  # the one that writes, or one that lost it
def test_a_console_that_nobody_reads_is_told_as_that(reports, index: int):
    report(reports, BrokenPipeError(errno.EPIPE, "Broken pipe"))
    with pytest.raises(BrokenPipeError) as caught:
        fails(reports, index)
    assert caught.value.filename is None


def test_bugs_and_successes_report_nothing(reports):
    report(reports, KeyError("a b"))
    assert reports.reporting(lambda args: 7)(argparse.Namespace()) == 7
    with pytest.raises(ProcessRaisedException):
        fails(reports, 0)


def test_a_long_message_is_cut_so_that_no_process_waits_for_a_reader(reports):
    report(reports, InputError("x" * 10**6))
    with pytest.raises(UserError) as caught:
        fails(reports, 0)
    assert len(str(caught.value)) == 2000


@pytest.mark.parametrize("ends", [False, True])
def test_a_process_leaves_its_group_before_it_ends(tmp_path, ends):
    def main(args):
        if ends:
            raise SystemExit(130)

    dist.init_process_group("gloo", f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    with pytest.raises(SystemExit) if ends else contextlib.nullcontext():
        child_errors._run(main, None, argparse.Namespace())
    assert not dist.is_initialized()
