"""The script that makes the demo model packs a checkpoint, and refuses one that is too large."""

from __future__ import annotations

from pathlib import Path

import make_demo_model
import pytest
import torch

from retinanet_ext import get_cfg, load_config_file
from retinanet_ext.weights.demo import DEMO_FOLDER
from retinanet_ext.weights.reading import CLASSES_KEY, read_torch


def test_a_checkpoint_is_packed_with_its_classes_and_nothing_of_the_training(tmp_path: Path):
    content = {
        "model": {"conv.weight": torch.randn(4, 8, 3, 3), "norm.bias": torch.randn(4)},
        CLASSES_KEY: ["circle"],
        "optimizer": {"state": {0: torch.zeros(10_000)}},
        "iteration": 9,
    }
    torch.save(content, tmp_path / "model_final.pth")
    size = make_demo_model.pack_file(tmp_path / "model_final.pth", tmp_path / "packed.pth")
    assert size == (tmp_path / "packed.pth").stat().st_size < 10_000
    found = read_torch(str(tmp_path / "packed.pth"))
    assert found.keys() == {"model", CLASSES_KEY} and found[CLASSES_KEY] == ["circle"]
    torch.testing.assert_close(
        found["model"]["conv.weight"], content["model"]["conv.weight"], rtol=0, atol=0.03
    )


def test_a_model_that_is_too_large_for_the_package_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    torch.save({"model": {"a": torch.zeros(9)}, CLASSES_KEY: ["a"]}, tmp_path / "a.pth")
    monkeypatch.setattr(make_demo_model, "MOST_BYTES", 100)
    with pytest.raises(SystemExit, match="more than 100"):
        make_demo_model.pack_file(tmp_path / "a.pth", tmp_path / "packed.pth")
    assert not (tmp_path / "packed.pth").exists()


def test_the_demo_has_the_config_that_the_script_trains():
    cfgs = [get_cfg(), get_cfg()]
    load_config_file(cfgs[0], make_demo_model.CONFIG)
    load_config_file(cfgs[1], DEMO_FOLDER / "config.yaml")
    assert cfgs[0] == cfgs[1]
