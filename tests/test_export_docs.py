"""What docs/export.md shows works, in the folders that it describes."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from retinanet_ext.cli import _build_parser, main
from retinanet_ext.export.folder import GOLDEN, PARITY, STANDALONE
from retinanet_ext.export.graph.module import HEADS
from retinanet_ext.inference.exported.sidecar import NAME, SUFFIXES
from tests.helpers.docs import blocks
from tests.helpers.exported import require_onnx
from tests.helpers.predicting import write_photos
from tests.helpers.run_folder import write_run
from tests.helpers.tiny import write_dataset

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "export.md").read_text()
QUICK = ["--exporter", "torchscript"]
"""For all exports but the first, which is made as the page says: seconds in place of a minute."""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that the page's commands run in; the current one."""
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path / "output" / "cells")
    write_dataset(tmp_path / "datasets")
    photos = write_photos(tmp_path / "new_pictures")
    for i in range(4, 16):
        (photos / f"{i}.png").write_bytes((photos / f"{i % 4}.png").read_bytes())
    Image.open(photos / "0.png").save("photo.jpg")
    return tmp_path


def run_python(*words: str) -> str:
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-W", "ignore", *words],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{words}\n{done.stdout}{done.stderr}"
    return done.stdout


def run_lines(script: str, capsys: pytest.CaptureFixture[str]) -> str:
    """Run the lines of the page's shell; what they say."""
    said, exported = "", False
    for line in script.replace("\\\n", " ").splitlines():
        program, *words = shlex.split(line)
        if program == "python":
            said += run_python(*words)
            continue
        assert program == "retinanet-ext"
        quick = QUICK if words[0] == "export" and exported else []
        exported |= words[0] == "export"
        assert main([words[0], *quick, *words[1:]]) == 0, line
        said += capsys.readouterr().out
    return said


@pytest.mark.slow
def test_the_commands_and_the_lines_of_python_work(folder, capsys, clean_catalogs):
    require_onnx()
    pytest.importorskip("onnxscript", reason="needs onnxscript, of the extra onnx")
    said = run_lines("".join(blocks(PAGE, "sh")), capsys)
    made = folder / "output/cells/export"
    assert {path.name for path in made.iterdir()} == {
        "onnx-nms",
        "torch-export-decoded",
        "torchscript-nms",
        "onnx-raw-int8",
    }
    assert all(json.loads((x / "parity.json").read_text())["checks"] for x in made.iterdir())
    listed = re.findall(r"^\| `([\w.]+)` \| [a-z]", PAGE.partition("## In the place")[0], re.M)
    assert set(listed) == {"model.onnx", NAME, GOLDEN, PARITY, *STANDALONE}
    assert {x.name for x in (made / "onnx-nms").iterdir() if x.is_file()} == set(listed)
    assert json.loads((folder / "fixed/model.json").read_text())["input"]["batch"] == 1
    assert "share of equal values" in said and "bbox/AP" in said
    assert re.search(r"AP \S+ in float32, \S+ in int8", said)
    assert len((folder / "found/predictions.jsonl").read_text().splitlines()) == 16
    (script,) = blocks(PAGE, "python")
    found = run_python("-c", script)
    assert "RBC" in found or "WBC" in found or "Platelets" in found


def test_every_option_that_the_page_names_is_there():
    known: set[str] = set()
    for command in ("export", "evaluate", "predict"):
        parser = _build_parser(command)
        known |= {*parser._subparsers._group_actions[0].choices[command]._option_string_actions}
    foreign = {"--check", "--onnx", "--minShapes"}
    assert set(re.findall(r"(?<=[` ])--[a-zA-Z][a-zA-Z-]+", PAGE)) <= known | foreign


def test_every_head_and_format_is_in_a_table():
    for name in (*HEADS, *SUFFIXES):
        assert re.search(rf"^\| `{name}`", PAGE, re.MULTILINE), name


def test_links_of_the_page_lead_somewhere():
    for path in re.findall(r"\]\(([^)#]+)\)", PAGE):
        assert (ROOT / "docs" / path).exists(), path
