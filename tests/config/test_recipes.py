"""Recipes that were not trained here: they are composed as they say, and a step of them runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from torch import nn

from retinanet_ext import get_cfg, load_config_file, validate_cfg
from retinanet_ext.data.augment.parse import parse_augmentations
from retinanet_ext.engine.optim.solver import build_optimizer
from retinanet_ext.modeling import ATSSAssigner, FederatedFocal, GIoU
from tests.modeling.test_retinanet import example

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
MODERN, LVIS = "retinanet_R_50_FPN_modern.yaml", "lvis_retinanet_R_50_FPN_1x.yaml"


def recipe(name: str) -> CfgNode:
    cfg = get_cfg()
    load_config_file(cfg, CONFIGS / name)
    assert validate_cfg(cfg) == []
    return cfg


def small(name: str) -> CfgNode:
    """The recipe on a small network with random weights."""
    cfg = recipe(name)
    cfg.MODEL.WEIGHTS, cfg.MODEL.DEVICE = "", "cpu"
    cfg.MODEL.RESNETS.DEPTH, cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 18, 64
    cfg.MODEL.FPN.OUT_CHANNELS, cfg.MODEL.RETINANET.NUM_CONVS = 32, 1
    return cfg


def step(cfg: CfgNode, model: nn.Module, batch: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    optimizer = build_optimizer(cfg, model)
    losses = model.train()(batch)
    assert all(x.isfinite() for x in losses.values())
    sum(losses.values()).backward()
    optimizer.step()
    again = model(batch)
    assert all(x.isfinite() for x in again.values())
    return losses


@pytest.mark.parametrize("name", [MODERN, LVIS])
def test_it_says_that_it_was_not_trained_here(name: str):
    comment = [x for x in (CONFIGS / name).read_text().splitlines() if x.startswith("#")]
    assert "ot trained here" in " ".join(comment)


def test_the_modern_recipe_is_what_it_says():
    cfg = small(MODERN)
    solver = cfg.SOLVER
    assert solver.OPTIMIZER == "AdamW" and solver.EPOCHS == 36 and solver.EMA.ENABLED
    assert [x["NAME"] for x in cfg.INPUT.AUG] == ["LargeScaleJitter", "RandomFlip"]
    assert len(parse_augmentations(cfg)) == 2
    model = build_model(cfg)
    assert isinstance(model.assigner, ATSSAssigner) and model.quality_branch == "iou"
    assert isinstance(model.box_loss.box_loss, GIoU)
    norms = [m for m in model.head.modules() if isinstance(m, nn.GroupNorm)]
    assert len(norms) >= 2
    optimizer = build_optimizer(cfg, model)
    assert isinstance(optimizer, torch.optim.AdamW)
    decays = {id(p): g["weight_decay"] for g in optimizer.param_groups for p in g["params"]}
    assert {decays[id(p)] for norm in norms for p in norm.parameters()} == {0.0}
    assert decays[id(model.head.cls_score.weight)] == 0.05
    losses = step(cfg, model, [example(classes=(0, 2))])
    assert losses.keys() == {"loss_cls", "loss_box_reg", "loss_quality"}


def test_the_lvis_recipe_teaches_the_classes_of_the_step_only():
    cfg = small(LVIS)
    assert cfg.DATALOADER.SAMPLER_TRAIN == "RepeatFactorTrainingSampler"
    assert cfg.DATALOADER.REPEAT_THRESHOLD == 0.001
    cfg.MODEL.RETINANET.CLASS_COUNTS = [1 + k % 7 for k in range(1203)]
    model = build_model(cfg)
    assert isinstance(model.cls_loss, FederatedFocal) and model.fuse_cls_loss
    losses = model.train()([example(classes=(5, 1100))])
    sum(losses.values()).backward()
    rows = model.head.cls_score.weight.grad.unflatten(0, (-1, 1203)).abs().sum((0, 2, 3, 4))
    assert (rows > 0).sum() == 50 and rows[5] > 0 and rows[1100] > 0
