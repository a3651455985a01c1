"""What docs/predict.md shows works, in the folders that it describes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from retinanet_ext.cli import _build_parser, main
from retinanet_ext.inference.outputs import Clip
from tests.helpers.docs import blocks
from tests.helpers.predicting import write_photos
from tests.helpers.run_folder import write_run

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "predict.md").read_text()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that the page's commands run in; the current one."""
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path / "output" / "cells")
    write_photos(tmp_path / "new_pictures")
    write_photos(tmp_path / "photos" / "within")
    for name in ("photo.jpg", "photos/a.png"):
        Path(name).write_bytes(Path("photos/within/0.png").read_bytes())
    Path("list.txt").write_text("photo.jpg\nphotos/a.png\n")
    return tmp_path


def run(script: str, *shell: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    environment["CUDA_VISIBLE_DEVICES"] = ""
    environment.pop("DISPLAY", None)
    done = subprocess.run(
        [*shell, script], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{script}\n{done.stdout}{done.stderr}"
    return done.stdout


def lines(folder: str) -> list[dict]:
    return [json.loads(x) for x in Path(folder, "predictions.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_the_commands_of_the_page_work(folder):
    clip = Clip("clip.webm", 25)
    for _ in range(30):
        clip.add(Image.open("photo.jpg").convert("RGB"))
    clip.close()
    program = f"retinanet-ext() {{ '{sys.executable}' -W ignore -m retinanet_ext \"$@\"; }}\n"
    script = program + "set -e -o pipefail\n" + "".join(blocks(PAGE, "sh"))
    said = run(script, "bash", "-c")
    numbers = {x: len(lines(x)) for x in ("found", *(f"found_{i}" for i in range(1, 8)))}
    assert list(numbers.values()) == [4, 6, 5, 2, 5, 5, 30, 4]
    assert len(list(Path("found/drawn").iterdir())) == 4
    assert len(list(Path("output/demo/drawn").iterdir())) == 6 and len(lines("found_demo")) == 1
    assert not Path("found/failed.txt").exists()
    for name in ("predictions.csv", "coco_instances_results.json", "labels/within/0.txt"):
        assert Path("found_5", name).is_file()
    assert {d["class"] for x in lines("found_5") for d in x["detections"]} == {"RBC", "WBC"}
    assert Path("found_6/drawn.webm").is_file()
    assert "photos/within/0.png\n" in said


@pytest.mark.slow
def test_the_lines_of_python_work(folder):
    scripts = blocks(PAGE, "python")
    said = [run(script, sys.executable, "-W", "ignore", "-c") for script in scripts]
    assert "photos/a.png" in "".join(said)
    assert Path("drawn.png").is_file()


def test_the_example_of_a_line_has_the_keys_of_a_line(folder):
    (example,) = blocks(PAGE, "json")
    words = ["predict", "output/cells", "photo.jpg", "--output", "out"]
    assert main(words) == 0
    (written,) = lines("out")
    shown = json.loads(example)
    assert list(shown) == list(written) and list(shown["ms"]) == list(written["ms"])
    assert list(shown["detections"][0]) == list(written["detections"][0])


def test_every_option_that_the_page_names_is_there():
    parser = _build_parser("predict")
    known = parser._subparsers._group_actions[0].choices["predict"]._option_string_actions
    assert set(re.findall(r"(?<=[` ])--[a-z][a-z-]+", PAGE)) <= {*known}


def test_links_of_the_page_lead_somewhere():
    for path in re.findall(r"\]\(([^)#]+)\)", PAGE):
        assert (ROOT / "docs" / path).exists(), path
