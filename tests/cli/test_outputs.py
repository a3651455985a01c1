"""Files that a command is to write are checked before it works."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from retinanet_ext.cli.outputs import check_free, check_writable
from retinanet_ext.cli.see.pictures import check_picture
from retinanet_ext.errors import ExistsError, FileError, InputError, MissingFileError


def test_a_path_that_can_be_written_passes_and_nothing_is_made(tmp_path):
    check_writable("--json", str(tmp_path / "a.json"))
    check_writable("--json", str(tmp_path / "new" / "folder" / "a.json"))
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "old.json").write_text("kept")
    check_writable("--json", str(tmp_path / "old.json"))
    assert (tmp_path / "old.json").read_text() == "kept"


def test_a_relative_path_is_of_the_current_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    check_writable("--json", "a.json", make_folder=False)


def test_a_folder_that_the_command_will_not_make_must_be_there(tmp_path):
    with pytest.raises(MissingFileError, match=r"--json is .*no folder for it"):
        check_writable("--json", str(tmp_path / "new" / "a.json"), make_folder=False)


def test_a_folder_or_a_file_in_the_way_is_named(tmp_path):
    with pytest.raises(FileError, match="it is a folder"):
        check_writable("--json", str(tmp_path))
    (tmp_path / "file").write_text("")
    with pytest.raises(FileError, match="file' is no folder"):
        check_writable("--json", str(tmp_path / "file" / "deep" / "a.json"))


def test_a_folder_without_permission_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path)
    with pytest.raises(FileError, match=r"--plot is .*permission denied"):
        check_writable("--plot", str(tmp_path / "a.png"))


def test_a_folder_in_which_no_file_can_be_made_is_named():
    with pytest.raises(FileError, match=r"--json is '/proc/a\.json', which cannot be written \("):
        check_writable("--json", "/proc/a.json")
    check_writable("--json", "/dev/stdout")


def test_an_existing_file_needs_force(tmp_path):
    path = tmp_path / "a.yaml"
    check_free("--output", str(path), force=False)
    path.write_text("")
    check_free("--output", str(path), force=True)
    with pytest.raises(ExistsError, match=r"--output is .*exists.*--force"):
        check_free("--output", str(path), force=False)


def test_a_picture_has_an_ending_that_can_be_written(tmp_path):
    check_picture("--output", str(tmp_path / "new" / "a.jpg"))
    with pytest.raises(InputError, match=r"--picture is 'a\.txt'.*\.png"):
        check_picture("--picture", "a.txt")
