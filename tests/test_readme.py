"""What README shows as code runs."""

from __future__ import annotations

import re
from pathlib import Path

import torch

from retinanet_ext import get_cfg
from retinanet_ext.registry import CLS_LOSS_REGISTRY
from retinanet_ext.structures import DenseTargets

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


def test_datasets_register():
    from detectron2.data import DatasetCatalog

    exec(block_with("register_coco_dataset"), {})
    assert "cells_train" in DatasetCatalog and "cells_val" in DatasetCatalog
    DatasetCatalog.remove("cells_train"), DatasetCatalog.remove("cells_val")
