"""What docs/evaluate.md shows works: its commands, its Python, the keys that it lists."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest

from retinanet_ext.cli import main
from retinanet_ext.evaluation.analysis.thresholds import read_thresholds
from tests.helpers.coco_results import as_results
from tests.helpers.coco_scenes import CLASSES, noisy_predictions, random_ground_truth
from tests.helpers.docs import blocks

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "evaluate.md").read_text()


COMMANDS = [shlex.split(block.replace("\\\n", " ")) for block in blocks(PAGE, "sh")]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current one, with the files of the page."""
    rng = np.random.default_rng(0)
    truth = random_ground_truth(rng)
    results = as_results(noisy_predictions(rng, truth, noise=0.05))
    (tmp_path / "val.json").write_text(json.dumps(truth))
    (tmp_path / "found.json").write_text(json.dumps(results))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_each_command_works(words, folder, capsys):
    assert words[0] == "retinanet-ext" and main(words[1:]) == 0
    printed = capsys.readouterr().out
    assert "AP50" in printed and "most confused" in printed and "ECE" in printed


def test_the_keys_of_the_json_are_those_of_the_page(folder):
    assert main(COMMANDS[-1][1:]) == 0
    content = json.loads((folder / "numbers.json").read_text())
    table = dict(re.findall(r"^\| `(\w+)[\w.]*` \| (.+) \|$", PAGE, re.MULTILINE))
    assert table.keys() == content.keys()
    for key, text in table.items():
        inner = content[key][CLASSES[0]] if key == "classes" else content[key]
        named = set(re.findall(r"`(\w+)`", text)) - {"cells"}
        assert named <= inner.keys() | {"iou"}, key
    assert read_thresholds("thresholds.yaml").of_class.keys() == set(CLASSES)


def test_the_format_of_the_page_is_accepted(folder):
    (text,) = blocks(PAGE, "json")
    (folder / "found.json").write_text(text)
    assert main(COMMANDS[0][1:]) == 0


def test_the_python_of_the_page_runs(folder, capsys):
    (code,) = blocks(PAGE, "python")
    exec(code, {})
    assert "Interval(value=" in capsys.readouterr().out


def test_every_block_of_the_page_is_tested():
    languages = re.findall(r"^```(\w+)$", PAGE, re.MULTILINE)
    assert sorted(languages) == ["json", "python", "sh", "sh", "sh"]
