"""What the scripts in dev/ share: every failure becomes one sentence with a hint."""

from __future__ import annotations

import sys

import pytest
import setup_tools
from setup_tools import SetupError


def test_old_python_gets_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(setup_tools.sys, "version_info", (3, 8, 18))
    monkeypatch.setattr(setup_tools.shutil, "which", lambda name: None)
    with pytest.raises(SetupError, match=r"Python 3\.10 or newer.* is Python 3\.8; install"):
        setup_tools.require_python()
    monkeypatch.setattr(setup_tools.shutil, "which", lambda name: name)
    monkeypatch.setattr(setup_tools, "is_recent", lambda name: name == "python3.12")
    with pytest.raises(SetupError, match=r"make PYTHON=python3\.12 quickstart"):
        setup_tools.require_python()


@pytest.mark.parametrize(
    ("stderr", "advice"),
    [
        ("NewConnectionError: Failed to establish a new connection", "check the network"),
        ("ERROR: No matching distribution (from versions: none)", "PIP_NO_INDEX"),
        ("ERROR: Could not install: [Errno 28] No space left on device", "disk is full"),
        ("error: externally-managed-environment", "python3 -m venv .venv"),
        ("/usr/bin/python: No module named pip", "ensurepip"),
        ("ERROR: ResolutionImpossible", "pip's own message above"),
    ],
)
def test_pip_errors_become_a_way_out(stderr: str, advice: str) -> None:
    assert advice in setup_tools.pip_advice(stderr)


def test_run_pip_shows_the_messages_and_raises(capfd: pytest.CaptureFixture) -> None:
    arguments = ["install", "--no-index", "retinanet-ext-no-such-package"]
    with pytest.raises(SetupError, match=r"^a step failed: the package index in use"):
        setup_tools.run_pip(sys.executable, arguments, "a step")
    assert "No matching distribution" in capfd.readouterr().err
