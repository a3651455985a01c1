"""Files that someone else wrote end in a sentence, whatever they are."""

from __future__ import annotations

import os

import pytest
import yaml

from retinanet_ext.errors import InputError, MissingFileError
from retinanet_ext.untrusted import check_regular, compose_yaml


def bomb(levels, width=9):
    lines = [f"a0: &a0 [{', '.join('x' * width)}]"]
    for i in range(1, levels + 1):
        lines.append(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * width)}]")
    return "\n".join(lines) + "\n"


def test_a_file_is_no_folder_device_or_pipe_and_of_a_size_that_makes_sense(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("12345")
    check_regular(path, 5)
    with pytest.raises(InputError, match=r"a\.txt has 5 bytes, but at most 4"):
        check_regular(path, 4)
    with pytest.raises(MissingFileError, match="does not exist"):
        check_regular(tmp_path / "b.txt")
    with pytest.raises(InputError, match="is a folder"):
        check_regular(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    for device in ("/dev/zero", tmp_path / "pipe"):
        with pytest.raises(InputError, match="is a device or pipe"):
            check_regular(device)


@pytest.mark.parametrize("text", [bomb(8), bomb(400), "a: &a [*a, 1]\n", "b: &b {c: *b}\n"])
def test_aliases_that_multiply_are_refused_before_anything_is_made_of_them(text, tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=r"a\.yaml: its aliases .* multiply"):
        compose_yaml(path)


def test_merge_keys_that_multiply_are_refused_too(tmp_path):
    lines = ["a0: &a0 {k: 1}"]
    lines += [f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 9)}]}}" for i in range(1, 9)]
    (tmp_path / "a.yaml").write_text("\n".join(lines))
    with pytest.raises(InputError, match="multiply"):
        compose_yaml(tmp_path / "a.yaml")


def test_a_few_aliases_and_an_empty_file_are_fine(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text(bomb(2))
    assert isinstance(compose_yaml(path), yaml.MappingNode)
    path.write_text("")
    assert compose_yaml(path) is None


def test_deep_nesting_is_a_sentence(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("a: " + "[" * 20_000)
    with pytest.raises(InputError, match=r"a\.yaml: is nested too deeply"):
        compose_yaml(path)
