"""The folder of an export: what may be written over."""

from __future__ import annotations

from pathlib import Path

import pytest

from retinanet_ext.errors import ExistsError
from retinanet_ext.export.folder import make_folder


def names(folder: Path) -> list[str]:
    return sorted(x.name for x in folder.iterdir())


@pytest.mark.parametrize("own", ["preprocess.py", "decode.py", "golden.npz", "parity.json"])
def test_files_of_no_export_are_not_written_over(tmp_path, own):
    (tmp_path / own).write_text("mine")
    with pytest.raises(ExistsError, match=f"whose {own} is of no export"):
        make_folder(str(tmp_path), overwrite=True)
    assert (tmp_path / own).read_text() == "mine"


@pytest.mark.parametrize("model", ["model.json", "model.onnx", "model.onnx.rejected"])
def test_of_an_earlier_export_all_is_removed_and_nothing_else(tmp_path, model):
    for name in (model, "preprocess.py", "decode.py", "notes.txt"):
        (tmp_path / name).write_text("")
    with pytest.raises(ExistsError, match="pass --overwrite"):
        make_folder(str(tmp_path), overwrite=False)
    make_folder(str(tmp_path), overwrite=True)
    assert names(tmp_path) == ["notes.txt"]


def test_a_folder_of_other_things_is_taken_with_overwrite(tmp_path):
    (tmp_path / "notes.txt").write_text("")
    make_folder(str(tmp_path), overwrite=True)
    assert names(tmp_path) == ["notes.txt"]
