"""Config files that are yaml and still no config."""

from __future__ import annotations

from pathlib import Path

import pytest

from retinanet_ext import get_cfg, load_config_file
from retinanet_ext.errors import UserError


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", r"'.*c\.yaml' is empty"),
        ("# nothing yet\n", "is empty"),
        ("- a\n", "holds no keys"),
        ("SOLVER:\n  BASE_LR: 0.1\nSOLVER:\n  MAX_ITER: 5\n", "SOLVER twice, in lines 1 and 3"),
        ("SOLVER:\n  BASE_LR: 0.1\n  BASE_LR: 0.2\n", r"SOLVER\.BASE_LR twice, in lines 2 and 3"),
        ("SEED: 1\n__BASE__: a.yaml\n", r"'__BASE__' in line 2; write _BASE_"),
        ("_base_: a.yaml\n", "write _BASE_"),
        ("_BASE_:\n", "no file name after _BASE_ in line 1"),
        ("_BASE_: c.yaml\n", r"c\.yaml' is its own _BASE_"),
        ("_BASE_: [empty.yaml]\n", r"empty\.yaml' is empty"),
        ("SOLVER: 3\n", "SOLVER"),
    ],
)
def test_a_file_that_is_no_config_is_named_with_what_to_write(
    tmp_path: Path, text: str, words: str
):
    (tmp_path / "empty.yaml").write_text("")
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(UserError, match=words):
        load_config_file(get_cfg(), tmp_path / "c.yaml")


def test_a_circle_of_two_files_is_found(tmp_path: Path):
    (tmp_path / "a.yaml").write_text("_BASE_: b.yaml\nSEED: 1\n")
    (tmp_path / "b.yaml").write_text("_BASE_: a.yaml\nSEED: 2\n")
    with pytest.raises(UserError, match="its own _BASE_, directly or by way of others"):
        load_config_file(get_cfg(), tmp_path / "a.yaml")


def test_a_missing_base_is_named(tmp_path: Path):
    (tmp_path / "a.yaml").write_text("_BASE_: nowhere.yaml\n")
    with pytest.raises(OSError, match=r"nowhere\.yaml"):
        load_config_file(get_cfg(), tmp_path / "a.yaml")


def test_one_base_of_two_files_and_an_alias_are_fine(tmp_path: Path):
    (tmp_path / "base.yaml").write_text("SEED: 1\n")
    for name in ("b", "c"):
        (tmp_path / f"{name}.yaml").write_text("_BASE_: base.yaml\n")
    (tmp_path / "a.yaml").write_text(
        "_BASE_: [b.yaml, c.yaml]\nMODEL:\n  PIXEL_MEAN: &m [1.0, 2.0, 3.0]\n  PIXEL_STD: *m\n"
    )
    cfg = get_cfg()
    assert load_config_file(cfg, tmp_path / "a.yaml") >= {"SEED", "MODEL.PIXEL_STD"}
    assert cfg.SEED == 1 and cfg.MODEL.PIXEL_STD == [1.0, 2.0, 3.0]


def test_devices_and_aliases_that_multiply_end_in_a_sentence(tmp_path: Path):
    lines = ["a0: &a0 [1, 2, 3, 4, 5, 6, 7, 8, 9]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 10)]
    (tmp_path / "bomb.yaml").write_text("\n".join(lines))
    (tmp_path / "c.yaml").write_text("_BASE_: bomb.yaml\n")
    with pytest.raises(UserError, match=r"bomb\.yaml: its aliases"):
        load_config_file(get_cfg(), tmp_path / "c.yaml")
    (tmp_path / "c.yaml").write_text("_BASE_: /dev/zero\n")
    with pytest.raises(UserError, match="/dev/zero is a device"):
        load_config_file(get_cfg(), tmp_path / "c.yaml")
