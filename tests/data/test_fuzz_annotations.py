"""Varied annotation files: a right result, a result that is announced, or one sentence."""

from __future__ import annotations

import importlib
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.fuzz.case import CONTENT, FORMATS, LATE, Case, Template
from tests.helpers.fuzz.check_data import judge_check_data
from tests.helpers.fuzz.judge import config, judge
from tests.helpers.fuzz.registered import judge_registered
from tests.helpers.fuzz.truth import Option

# Where the mutations are, which register themselves.
MUTATIONS = (
    *("coco", "coco_entries", "coco_structure", "voc", "voc_structure", "yolo", "data_yaml"),
    *("rows", "text", "pictures", "lists"),
)
for _name in MUTATIONS:
    importlib.import_module(f"tests.helpers.fuzz.{_name}")

VARIATIONS = 450  # of one seed, all formats together
CHECKED = 5  # each fifth goes through check-data --fix, too

pytestmark = pytest.mark.usefixtures("clean_catalogs")


def varied(template: Template, root: Path, name: str) -> Case:
    """A variation, of one content and one structure or file at most; the same for the same name."""
    rng = random.Random(name)
    case = template.copy(root, with_classes=rng.random() < 0.5)
    kind = rng.random()
    if kind < 0.65:
        rng.choice(CONTENT[template.kind])(case, rng)
    if kind > 0.5:
        case.places.clear()  # either fault may be found first
        rng.choice(LATE[template.kind])(case, rng)
    return case


def variations(root: Path, seed: int, count: int) -> Iterator[tuple[int, str, Case]]:
    """Number, name and files of each, which are removed after it."""
    templates = [Template(kind, root / kind, seed) for kind in FORMATS]
    for number in range(count):
        template = templates[number % len(templates)]
        name = f"{template.kind}/{seed}/{number}"
        folder = root / str(number)
        yield number, name, varied(template, folder / "set", name)
        shutil.rmtree(folder)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_nothing_is_read_wrong_without_a_word(tmp_path: Path, seed: int):
    cfg, wrong = config(), []
    for number, name, case in variations(tmp_path, seed, VARIATIONS):
        fault = judge(case, cfg)
        if number % CHECKED == seed % CHECKED:
            fault = fault or judge_check_data(case, cfg)
            if case.kind == "coco":
                fault = fault or judge_registered(case, cfg)
        if fault:
            wrong.append(f"{name} {case.notes}: {fault}".replace(str(case.root), "..."))
    assert not wrong, f"{len(wrong)} of {VARIATIONS}:\n" + "\n".join(wrong)


@pytest.mark.parametrize("kind", FORMATS)
def test_the_fuzzer_itself_accepts_only_what_is_right(tmp_path: Path, kind: str):
    cfg = config()
    template = Template(kind, tmp_path / kind, 0)
    good = template.copy(tmp_path / "good", with_classes=False)
    assert judge(good, cfg) == "" and judge_check_data(good, cfg) == ""
    moved = template.copy(tmp_path / "moved", with_classes=False)
    for boxes in (moved.accepted[0][0].boxes["p00.png"], moved.truth.boxes["p00.png"]):
        boxes[0].corners = (0, 0, 9, 9)
    assert judge(moved, cfg).startswith("SILENT: p00.png")
    refused = template.copy(tmp_path / "refused", with_classes=False)
    refused.expect("must be refused", touched="p00")
    assert judge(refused, cfg).startswith("SILENT: must be refused")
    said = template.copy(tmp_path / "said", with_classes=False)
    said.expect("must be said", Option(said=True), touched="p00")
    assert judge(said, cfg).startswith("SILENT: the same")
    assert judge_check_data(said, cfg) == "check-data finds nothing"
    gone = template.copy(tmp_path / "gone", with_classes=False)
    gone.annotation_file(random.Random(0)).write_text("?")
    gone.touched = ["no such name"]
    assert judge(gone, cfg).startswith("REFUSED")
    gone.may_refuse = True
    assert judge(gone, cfg).startswith("MESSAGE does not name the file")
