"""The program answers at once where no command is run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import retinanet_ext
import retinanet_ext_command
from retinanet_ext.cli import COMMANDS

ROOT = Path(__file__).resolve().parents[2]
CODE = (
    "import sys, retinanet_ext_command\n"
    "try:\n"
    "    code = retinanet_ext_command.main(sys.argv[1:])\n"
    "except SystemExit as end:\n"
    "    code = end.code\n"
    "print(code, 'torch' in sys.modules, 'retinanet_ext' in sys.modules)\n"
)


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["--help"], 0, "draw-detections"),
        ([], 2, "required: COMMAND"),
        (["trian"], 2, "invalid choice: 'trian'"),
        (["--helpp"], 2, "error"),
    ],
)
def test_help_and_typing_errors_load_nothing(words: list[str], code: int, says: str):
    done = subprocess.run(
        [sys.executable, "-c", CODE, *words], cwd=ROOT, capture_output=True, text=True
    )
    assert done.stdout.splitlines()[-1] == f"{code} False False"
    assert says in done.stdout + done.stderr


def test_a_command_is_that_of_the_package(monkeypatch):
    monkeypatch.setattr("retinanet_ext.cli.main", lambda words: words)
    for name in COMMANDS:
        assert retinanet_ext_command.main([name, "--x"]) == [name, "--x"]


def test_the_version_is_that_of_the_package(capsys):
    with pytest.raises(SystemExit) as end:
        retinanet_ext_command.main(["--version"])
    assert end.value.code == 0
    assert capsys.readouterr().out.strip() == f"retinanet_ext {retinanet_ext.__version__}"
