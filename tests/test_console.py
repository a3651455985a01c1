"""Lines of progress are rewritten on a terminal and kept elsewhere; the rest is one line each."""

import io
import logging
import os
from types import SimpleNamespace

import pytest

from retinanet_ext import console
from retinanet_ext.console import PROGRESS, SHOWN, ConsoleHandler, end_progress, hushed

logger = logging.getLogger("retinanet_ext.test_console")


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def handler():
    handler = ConsoleHandler()
    package = logging.getLogger("retinanet_ext")
    level = package.level
    package.setLevel(logging.INFO)
    package.addHandler(handler)
    yield handler
    package.removeHandler(handler)
    package.setLevel(level)


@pytest.fixture
def terminal(handler, monkeypatch):
    stream = Terminal()
    # Not sys.stdout itself, which pytest sets between fixture and test.
    monkeypatch.setattr(console, "sys", SimpleNamespace(stdout=stream))
    monkeypatch.setattr("shutil.get_terminal_size", lambda: os.terminal_size((20, 24)))
    return stream


def test_each_line_of_progress_replaces_the_one_before_on_a_terminal(terminal):
    for number in (1, 2):
        logger.info("iter %d", number, extra=PROGRESS)
    assert terminal.getvalue() == "iter 1\r\x1b[Kiter 2"
    logger.info("done", extra=SHOWN)
    assert terminal.getvalue().endswith("iter 2\r\x1b[Kdone\n")


def test_a_line_of_progress_fits_into_the_terminal(terminal):
    logger.info("%s", "x" * 50, extra=PROGRESS)
    assert terminal.getvalue() == "x" * 19


def test_what_is_printed_after_progress_begins_on_its_own_line(terminal):
    logger.info("iter 1", extra=PROGRESS)
    end_progress()
    end_progress()
    assert terminal.getvalue() == "iter 1\n"


def test_elsewhere_each_line_of_progress_stays(handler, capsys):
    for number in (1, 2):
        logger.info("iter %d", number, extra=PROGRESS)
    assert capsys.readouterr().out == "iter 1\niter 2\n"


def test_warnings_are_coloured_on_a_terminal_only(terminal, monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    logger.warning("hot")
    assert terminal.getvalue() == "\x1b[33mwarning:\x1b[0m hot\n"
    monkeypatch.setenv("NO_COLOR", "1")
    logger.error("burnt")
    assert terminal.getvalue().endswith("\nerror: burnt\n")


def test_hushed_blocks_show_warnings_only(handler, capsys):
    with hushed():
        logger.info("a table", extra=SHOWN)
        logger.warning("beware")
    logger.info("the end", extra=SHOWN)
    assert capsys.readouterr().out == "warning: beware\nthe end\n"
