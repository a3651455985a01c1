"""Detectron2's Swin and ViT by yaml; timm, whose two layers they take, is stood in for."""

from __future__ import annotations

import sys
import types
from typing import Any

import pytest
import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from detectron2.modeling.backbone.vit import get_vit_lr_decay_rate
from torch import nn

from retinanet_ext import UserError, validate_cfg
from retinanet_ext.engine.optim.freeze import freeze
from retinanet_ext.engine.optim.layer_decay import layer_lr_factors
from tests.modeling.test_retinanet import example

from .test_timm_networks import check_levels, timm_cfg


class DropPath(nn.Module):
    def __init__(self, drop_prob: float = 0.0):
        super().__init__()
        self.drop_prob = drop_prob

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


class Mlp(nn.Module):
    def __init__(self, in_features: int, hidden_features: int, act_layer: Any):
        super().__init__()
        self.fc1, self.act = nn.Linear(in_features, hidden_features), act_layer()
        self.fc2 = nn.Linear(hidden_features, in_features)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc2(self.act(self.fc1(x)))


@pytest.fixture(autouse=True)
def layers_of_timm(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("timm", "timm.models", "timm.models.layers")
    modules = [types.ModuleType(name) for name in names]
    modules[2].DropPath, modules[2].Mlp = DropPath, Mlp
    for name, module in zip(names, modules, strict=True):
        monkeypatch.setitem(sys.modules, name, module)


def vit_cfg(**keys: Any) -> CfgNode:
    cfg = timm_cfg("")
    cfg.MODEL.BACKBONE.NAME = "build_vit_simple_pyramid"
    cfg.MODEL.FPN.IN_FEATURES = []
    tiny = {"EMBED_DIM": 16, "DEPTH": 2, "NUM_HEADS": 2, "GLOBAL_BLOCKS": [1], "IMG_SIZE": 128}
    for key, value in {**tiny, "WINDOW_SIZE": 4, **keys}.items():
        cfg.MODEL.VIT[key] = value
    return cfg


def swin_cfg(**keys: Any) -> CfgNode:
    cfg = timm_cfg("")
    cfg.MODEL.BACKBONE.NAME = "build_fpn_backbone_p6p7"
    cfg.MODEL.FPN.BOTTOM_UP = "build_swin_backbone"
    cfg.MODEL.FPN.IN_FEATURES = ["p1", "p2", "p3"]
    tiny = {"EMBED_DIM": 8, "DEPTHS": [1, 1, 2, 1], "NUM_HEADS": [1, 1, 2, 2]}
    for key, value in {**tiny, "WINDOW_SIZE": 4, **keys}.items():
        cfg.MODEL.SWIN[key] = value
    return cfg


@pytest.mark.parametrize("make", [vit_cfg, swin_cfg])
def test_it_is_a_pyramid_from_8_to_128_and_trains(make: Any):
    cfg = make()
    assert validate_cfg(cfg) == []
    check_levels(cfg)
    model = build_model(cfg).train()
    losses = model([example()])
    sum(losses.values()).backward()
    assert all(x.isfinite() for x in losses.values())
    assert [n for n, p in model.named_parameters() if p.grad is None] == []


def test_layers_of_a_vit_decay_as_in_detectron2():
    model = build_model(vit_cfg())
    factors = layer_lr_factors(model, 0.8)
    expected = {name: get_vit_lr_decay_rate(name, 0.8, 2) for name in factors}
    assert factors == pytest.approx(expected)
    assert sorted({round(x, 6) for x in factors.values()}) == [0.512, 0.64, 0.8, 1]


@pytest.mark.parametrize("name", ["backbone.net", "backbone"])
def test_a_frozen_vit_has_no_gradient_while_its_pyramid_has(name: str):
    model = build_model(vit_cfg()).train()
    freeze(model, [name])
    sum(model([example()]).values()).backward()
    grads = {n: p.grad is not None for n, p in model.backbone.named_parameters()}
    assert {n for n, has in grads.items() if has} == {n for n in grads if not n.startswith("net.")}


def test_blocks_are_windowed_but_for_the_global_ones():
    net = build_model(vit_cfg(DEPTH=3, GLOBAL_BLOCKS=[0, 2])).backbone.net
    assert [block.window_size for block in net.blocks] == [0, 4, 0]


@pytest.mark.parametrize(
    ("cfg", "words"),
    [
        (vit_cfg(PATCH_SIZE=14), "PATCH_SIZE is 14.*power of two"),
        (vit_cfg(NUM_HEADS=3), "EMBED_DIM is 16.*multiple of 4 and of MODEL.VIT.NUM_HEADS, 3"),
        (vit_cfg(GLOBAL_BLOCKS=[2]), "GLOBAL_BLOCKS has 2, but the blocks are 0 to 1"),
        (swin_cfg(NUM_HEADS=[1, 1]), "SWIN.DEPTHS is .* for each of up to 4 stages"),
        (swin_cfg(OUT_FEATURES=["res3"]), "OUT_FEATURES is .*name some of p0, p1, p2, p3"),
    ],
)
def test_settings_that_cannot_work_are_refused(cfg: CfgNode, words: str):
    for check in (validate_cfg, build_model):
        with pytest.raises(UserError, match=words):
            check(cfg)


@pytest.mark.parametrize("make", [vit_cfg, swin_cfg])
def test_without_timm_one_sentence_says_how_to_install_it(
    make: Any, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(UserError, match=r"build_\w+ needs the package timm.*pip install timm$"):
        validate_cfg(make())
