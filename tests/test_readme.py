"""What README shows as code runs."""

from __future__ import annotations

import re
from pathlib import Path

import torch

from retinanet_ext import get_cfg
from retinanet_ext.engine.setup import build_cfg, default_argument_parser
from retinanet_ext.registry import CLS_LOSS_REGISTRY
from retinanet_ext.structures import DenseTargets
from tests.helpers.coco_file import coco_file

README = Path(__file__).resolve().parents[1] / "README.md"


def python_blocks() -> list[str]:
    return re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)


def block_with(text: str) -> str:
    (found,) = [block for block in python_blocks() if text in block]
    return found


def test_own_loss_registers_and_computes():
    exec(block_with("class BalancedCrossEntropy"), {"__name__": "readme"})
    loss = CLS_LOSS_REGISTRY.get("BalancedCrossEntropy")(get_cfg())
    targets = DenseTargets(torch.tensor([[0, 2, -1, 2]]), torch.zeros(1, 4, 4), num_classes=2)
    # At p = 0.5 the one positive costs 0.25 ln 2, the five negatives 0.75 ln 2 each, the ignored
    # anchor nothing.
    value = loss([torch.zeros(1, 2, 2, 2)], targets).item()
    assert abs(value - (0.25 + 5 * 0.75) * 0.693147) < 1e-4


def test_anchors_work_in_another_model():
    cfg = {}
    exec(block_with("OCTAVE_BASE_SIZES").replace("get_cfg()", "_cpu_cfg()"), scope(cfg))
    assert cfg["model"].proposal_generator.anchor_generator.num_anchors == [9]


def scope(variables: dict) -> dict:
    def cpu_cfg():
        from detectron2.config import get_cfg as detectron2_cfg

        cfg = detectron2_cfg()
        cfg.MODEL.DEVICE = "cpu"
        return cfg

    variables["_cpu_cfg"] = cpu_cfg
    return variables


def test_the_command_for_own_data_is_understood(tmp_path, monkeypatch):
    cells = tmp_path / "cells"
    (cells / "images").mkdir(parents=True)
    for split in ("train", "val"):
        coco_file(cells / f"{split}.json", {}, categories={1: "cell"})
    monkeypatch.chdir(tmp_path)
    text = README.read_text().replace("\\\n", " ")
    (command,) = re.findall(r"^python train_net\.py (.* --train .*)$", text, re.MULTILINE)
    words = command.replace("configs/", f"{README.parent}/configs/").split()
    cfg = build_cfg(default_argument_parser().parse_args(words))
    assert cfg.DATASETS.TRAIN == ("custom_train",) and cfg.DATASETS.TEST == ("custom_val",)
    paths = [(entry["ANNOTATIONS"], entry["IMAGES"]) for entry in cfg.DATASETS.EXTRA]
    assert paths == [(str(cells / f"{x}.json"), str(cells / "images")) for x in ("train", "val")]
