"""Varied annotation files: a right result, a result that is announced, or one sentence."""

from __future__ import annotations

import random
import shutil
from collections import Counter
from pathlib import Path

import pytest

from tests.helpers.fuzz.case import CONTENT, FORMATS, LATE, Case, Template
from tests.helpers.fuzz.judge import config, judge

# Where the mutations are, which register themselves.
from tests.helpers.fuzz import coco, coco_structure, pictures, rows, text, voc, yolo  # noqa: F401  isort: skip

VARIATIONS = 450  # of one seed, all formats together

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


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_nothing_is_read_wrong_without_a_word(tmp_path: Path, seed: int):
    cfg, wrong = config(), []
    templates = [Template(kind, tmp_path / kind, seed) for kind in FORMATS]
    for i in range(VARIATIONS):
        template = templates[i % len(templates)]
        name = f"{template.kind}/{seed}/{i}"
        case = varied(template, tmp_path / f"{i}" / "set", name)
        fault, _ = judge(case, cfg)
        if fault:
            wrong.append(f"{name} {case.notes}: {fault}".replace(str(case.root), "..."))
        shutil.rmtree(tmp_path / f"{i}", ignore_errors=True)
    kinds = Counter(x.split(": ", 1)[1].split()[0] for x in wrong)
    assert not wrong, f"{len(wrong)} of {VARIATIONS}: {kinds}\n" + "\n".join(wrong)
