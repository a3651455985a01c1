"""Log lines go to the file and, chosen ones, to the console; cores are shared."""

import errno
import logging
import os
import sys
import warnings

import pytest
import torch

from retinanet_ext import get_cfg
from retinanet_ext.console import SHOWN
from retinanet_ext.engine import job
from retinanet_ext.engine.job import share_cpu_cores, start_logging

OURS, THEIRS = logging.getLogger("retinanet_ext.engine"), logging.getLogger("detectron2.engine")


@pytest.fixture
def python_warnings():
    """Undo what capturing Python's warnings changes."""
    yield
    logging.captureWarnings(False)
    logging.getLogger("py.warnings").handlers.clear()


@pytest.fixture
def log(tmp_path, python_warnings):
    return tmp_path / "log.txt"


def test_the_console_shows_marked_lines_and_warnings_and_the_file_everything(log, capsys):
    start_logging(str(log.parent))
    THEIRS.info("the whole config")
    OURS.info("a detail")
    OURS.info("what a person needs", extra=SHOWN)
    THEIRS.warning("beware")
    assert capsys.readouterr().out.splitlines() == ["what a person needs", "warning: beware"]
    text = log.read_text()
    for words in ("the whole config", "a detail", "what a person needs", "beware"):
        assert words in text


def test_verbose_shows_everything(log, capsys):
    start_logging(str(log.parent), verbose=True)
    THEIRS.info("the whole config")
    OURS.info("a detail")
    out = capsys.readouterr().out
    assert "the whole config" in out and "a detail" in out


def test_neither_a_file_nor_a_pipe_gets_colour_codes(log, capsys):
    start_logging(str(log.parent), verbose=True)
    THEIRS.info("\x1b[38;5;197mSOLVER\x1b[39m: \x1b[1mred\x1b[0m")
    assert "\x1b" not in log.read_text() + capsys.readouterr().out
    assert "SOLVER: red" in log.read_text()


def test_no_color_is_heeded_on_a_terminal(log, capsys, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("NO_COLOR", "1")
    start_logging(str(log.parent))
    OURS.warning("\x1b[31mred\x1b[0m")
    assert capsys.readouterr().out == "warning: red\n"


def test_starting_twice_shows_lines_once(log, capsys):
    start_logging(str(log.parent / "first"))
    start_logging(str(log.parent))
    OURS.info("once", extra=SHOWN)
    assert capsys.readouterr().out == "once\n"


def test_other_processes_are_silent_and_keep_a_file_of_their_own(log, capsys, monkeypatch):
    monkeypatch.setattr(job.comm, "get_rank", lambda: 1)
    start_logging(str(log.parent))
    OURS.warning("beware")
    OURS.info("a line", extra=SHOWN)
    assert capsys.readouterr().out == ""
    assert "a line" in (log.parent / "log.txt.rank1").read_text()


def test_warnings_of_python_go_to_the_file_only(log, capfd):
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        start_logging(str(log.parent))
        warnings.warn("torch.jit is old", FutureWarning, stacklevel=1)
        logging.captureWarnings(False)
    assert "torch.jit" not in "".join(capfd.readouterr())
    assert "torch.jit is old" in log.read_text()


def test_a_script_without_set_up_has_detectron2s_own_console(capsys):
    for name in job.LOGGERS:
        logging.getLogger(name).setLevel(logging.NOTSET)
    job.setup_logger.cache_clear()
    job.ensure_logging()
    THEIRS.info("an unmarked line")
    assert "an unmarked line" in capsys.readouterr().out


def test_cpu_processes_share_the_cores(monkeypatch):
    threads = []
    monkeypatch.setattr(torch, "set_num_threads", threads.append)
    monkeypatch.setattr(os, "cpu_count", lambda: 9)
    monkeypatch.setattr(job.comm, "get_local_size", lambda: 2)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    cfg = get_cfg()
    cfg.MODEL.DEVICE = "cpu"
    share_cpu_cores(cfg)
    assert threads == [4]
    # What the user set stays.
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    share_cpu_cores(cfg)
    assert threads == [4]


class FullDisk:
    """A file whose disk is full."""

    name = "output/log.txt"

    def write(self, text):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_is_told_once_and_not_for_each_line(capsys):
    handler = logging.StreamHandler(FullDisk())
    job._adapt(handler, verbose=False)
    for number in range(3):
        handler.emit(logging.makeLogRecord({"msg": f"line {number}"}))
    text = capsys.readouterr().err
    assert text == "output/log.txt cannot be written: No space left on device; log lines are lost\n"
    handler.emit(logging.makeLogRecord({"msg": "%d", "args": ("a bug",)}))
    assert "--- Logging error ---" in capsys.readouterr().err
