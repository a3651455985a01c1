"""The program answers at once where no command is run."""

from __future__ import annotations

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
