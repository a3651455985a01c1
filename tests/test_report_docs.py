"""What docs/report.md shows works: its commands, its Python, the keys and options that it lists."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path

import pytest

from retinanet_ext.cli import _build_parser, main
from tests.helpers.docs import blocks
from tests.helpers.evaluated_run import write_evaluated_run
from tests.helpers.reports import Page

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "report.md").read_text()


COMMANDS = [shlex.split(block.replace("\\\n", " ")) for block in blocks(PAGE, "sh")]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clean_catalogs: None) -> Path:
    """The current one, with the files and runs of the page."""
    monkeypatch.chdir(tmp_path)
    run = write_evaluated_run(tmp_path, tmp_path / "output" / "cells")
    found = run / "inference" / "coco_instances_results.json"
    for name in ("found.json", "other.json"):
        shutil.copy(found, tmp_path / name)
    shutil.copytree(run, tmp_path / "output" / "cells_again")
    return tmp_path


def test_the_commands_of_the_page_work_one_after_the_other(folder, capsys):
    for words in COMMANDS:
        assert words[0] == "retinanet-ext"
        assert main(words[1:]) == 0, words
    place = Path("output/cells/inference")
    listed = re.findall(r"^\| `(\w+\.\w+)` \|", PAGE, re.MULTILINE)
    assert listed == ["report.html", "report.json", "thresholds.yaml"]
    for name in listed:
        assert (place / name).is_file()
    assert "compare" in Page("report.html").ids() and Path("cells.html").is_file()
    assert json.loads(Path("cells.json").read_text())["settings"]["iou"] == 0.75


def test_the_keys_of_the_json_are_those_of_the_page(folder):
    compares = next(words for words in COMMANDS if "--compare" in words and "output/cells" in words)
    (folder / "output/cells/metrics.json").write_text('{"iteration": 1, "total_loss": 2}')
    assert main([*compares[1:], "--bootstrap", "10"]) == 0
    content = json.loads(Path("output/cells/inference/report.json").read_text())
    table = PAGE.partition("| key of `report.json`")[2].partition("\n\n")[0]
    listed = [
        key for row in table.splitlines()[2:] for key in re.findall(r"`(\w+)`", row.split("|")[1])
    ]
    assert sorted(listed) == sorted(content)


def test_every_option_that_the_page_names_is_there_and_every_one_of_a_report_is_named():
    parser = _build_parser("report")
    known = parser._subparsers._group_actions[0].choices["report"]._option_string_actions
    named = set(re.findall(r"(?<=[` ])--[a-z][a-z-]+", PAGE))
    assert named <= {*known}
    general = {
        *_build_parser("serve")
        ._subparsers._group_actions[0]
        .choices["serve"]
        ._option_string_actions
    }
    assert {x for x in known if x.startswith("--")} - general <= named


def test_the_python_of_the_page_runs(folder, capsys):
    (code,) = blocks(PAGE, "python")
    exec(code, {})
    assert float(capsys.readouterr().out.split()[0]) >= 0 and Path("page.html").is_file()


def test_links_and_the_picture_of_the_page_are_there():
    for path in re.findall(r"\]\(([^)#]+)\)", PAGE):
        assert (ROOT / "docs" / path).exists(), path
    assert (ROOT / "docs" / "report.jpg").stat().st_size <= 300_000


def test_every_block_of_the_page_is_tested():
    assert set(re.findall(r"^```(\w+)$", PAGE, re.MULTILINE)) == {"sh", "python"}
