"""Checkpoints with objects of another package: their tensors are read, and nothing runs."""

from __future__ import annotations

import os
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch

from retinanet_ext.weights.foreign import read_foreign
from retinanet_ext.weights.reading import WeightsError, read_torch


class _Config(dict):
    """In a module that is not there when the file is read."""


@pytest.fixture
def checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Function that saves a checkpoint as mmdet does, with an object of its own; gives the path."""
    module = types.ModuleType("mmengine_of_a_test")
    kind = type("Config", (_Config,), {"__module__": module.__name__})
    module.Config = kind  # type: ignore[attr-defined]

    def save(name: str, **options: Any) -> str:
        monkeypatch.setitem(sys.modules, module.__name__, module)
        content = {
            "meta": {"config": kind(a=[1]), "CLASSES": ("cat", "dog"), "epoch": 3, "note": "x"},
            "state_dict": {"conv.weight": torch.arange(6.0).view(2, 3)},
            "message_hub": [kind(), {"loss": 0.5}],
        }
        torch.save(content, tmp_path / name, **options)
        monkeypatch.delitem(sys.modules, module.__name__)
        return str(tmp_path / name)

    return save


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "old format"])
def test_tensors_and_plain_values_are_read_and_objects_left_out(checkpoint, zipped: bool):
    path = checkpoint("epoch_3.pth", _use_new_zipfile_serialization=zipped)
    with pytest.raises(WeightsError, match="asks for the Python object"):
        read_torch(path)
    content = read_foreign(path)
    assert torch.equal(content["state_dict"]["conv.weight"], torch.arange(6.0).view(2, 3))
    assert content["meta"]["CLASSES"] == ["cat", "dog"] and content["meta"]["epoch"] == 3
    assert "mmengine_of_a_test" not in sys.modules


class _Runs:
    def __init__(self, path: str):
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "old format"])
def test_nothing_that_a_file_asks_for_is_run(tmp_path: Path, zipped: bool):
    made = tmp_path / "made"
    torch.save(
        {"state_dict": {"w": torch.ones(2)}, "meta": _Runs(str(made))},
        tmp_path / "bad.pth",
        _use_new_zipfile_serialization=zipped,
    )
    content = read_foreign(tmp_path / "bad.pth")
    assert not made.exists()
    assert list(content["state_dict"]) == ["w"]


@pytest.mark.parametrize("bytes_", [b"", b"no checkpoint", b"PK\x03\x04broken"])
def test_other_files_are_refused(tmp_path: Path, bytes_: bytes):
    (tmp_path / "other.pth").write_bytes(bytes_)
    with pytest.raises(WeightsError, match=r"other.pth"):
        read_foreign(tmp_path / "other.pth")
