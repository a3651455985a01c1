"""The program answers at once where no command is run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import retinanet_ext
import retinanet_ext_command
from retinanet_ext.cli import COMMANDS
from tests.helpers.broken import good_content, write

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


LOADED = (
    "import sys, retinanet_ext_command\n"
    "code = retinanet_ext_command.main(sys.argv[1:])\n"
    "early = 'torch._dynamo' in sys.modules\n"
    "from torchvision.ops import roi_align\n"
    "mine = roi_align.__globals__['is_compile_supported']('cpu')\n"
    "import torch, torch._dynamo.utils as real\n"
    "whole = hasattr(real, 'counters') and hasattr(torch._dynamo, 'optimize')\n"
    "print(code, early, mine == real.is_compile_supported('cpu'), whole)\n"
)


def test_a_command_starts_without_the_compiler_of_pytorch(tmp_path: Path):
    """And it is there, whole, when it is asked for."""
    json_file, images = write(tmp_path, good_content(), "train")
    done = subprocess.run(
        [sys.executable, "-c", LOADED, "check-data", "--train", f"{json_file}:{images}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == "0 False True True"


def test_whatever_else_is_asked_of_the_stand_in_is_the_compiler():
    code = (
        "import sys, torch, retinanet_ext_command as command\n"
        "for name in command.STAND_INS: sys.modules[name] = command._OnDemand(name)\n"
        "import torch._dynamo.config\n"
        "from torch._dynamo.utils import counters\n"
        "print(type(sys.modules['torch._dynamo']).__name__, torch._dynamo.config.__name__)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.split() == ["module", "torch._dynamo.config"], done.stderr


def without_a_reader(words: list[str]) -> tuple[int, str]:
    """Exit status of a program whose standard output is closed before it writes, and stderr."""
    code = f"import sys; sys.stdin.read(); sys.argv[1:] = {words[1:]!r}\n{words[0]}"
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=ROOT,
        # With it, argparse itself notices, and says nothing: the status is 0.
        env={k: v for k, v in os.environ.items() if k != "PYTHONUNBUFFERED"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdin and process.stdout and process.stderr
    process.stdout.close()
    process.stdin.close()
    said = process.stderr.read()
    return process.wait(), said


PROGRAM = "import retinanet_ext_command as command; sys.exit(command.main())"


@pytest.mark.parametrize("words", [["--help"], ["weights", "--help"], ["weights", "list"]])
def test_help_and_lists_end_in_silence_where_nobody_reads_them(words: list[str]):
    assert without_a_reader([PROGRAM, *words]) == (141, "")


def test_a_typing_error_is_told_where_nobody_reads_the_output():
    code, said = without_a_reader([PROGRAM, "trian"])
    assert code == 2 and "invalid choice: 'trian'" in said


LOGGING = """
import logging
from retinanet_ext.cli.common import run_guarded
from retinanet_ext.console import SHOWN
from retinanet_ext.engine.job import start_logging

def command():
    start_logging(None, verbose="--verbose" in sys.argv)
    try:
        for number in range(3):
            logging.getLogger("retinanet_ext.train").info("line %d", number, extra=SHOWN)
    except BrokenPipeError:
        # What is done before the end logs, too, and must not be interrupted by it.
        logging.getLogger("retinanet_ext.train").info("saved", extra=SHOWN)
        logging.getLogger("detectron2.engine").warning("saved")
        print(number, file=sys.stderr)
        raise

sys.exit(run_guarded(command))
"""


@pytest.mark.parametrize("options", [[], ["--verbose"]])
def test_log_lines_that_nobody_reads_end_a_program_at_the_first(options: list[str]):
    assert without_a_reader([LOGGING, *options]) == (141, "0\n")
