"""Lower layers of the backbone learn more slowly; norms and biases keep their own rules."""

from __future__ import annotations

import pytest
import torch
from detectron2.modeling import build_model
from detectron2.modeling.backbone import get_vit_lr_decay_rate
from torch import nn

from retinanet_ext import get_cfg
from retinanet_ext.engine.optim.layer_decay import layer_lr_factors
from retinanet_ext.engine.optim.solver import build_lr_scheduler, build_optimizer

R18 = {
    "backbone.bottom_up.stem.conv1.weight": 5,
    "backbone.bottom_up.res2.0.conv1.weight": 4,
    "backbone.bottom_up.res2.1.conv2.norm.weight": 4,
    "backbone.bottom_up.res3.0.shortcut.weight": 3,
    "backbone.bottom_up.res4.1.conv2.weight": 2,
    "backbone.bottom_up.res5.0.conv1.weight": 1,
    "backbone.fpn_lateral3.weight": 0,
    "backbone.fpn_output5.bias": 0,
    "backbone.top_block.p6.weight": 0,
    "head.cls_subnet.0.weight": 0,
    "head.cls_score.bias": 0,
}
REGNET = {
    "backbone.bottom_up.stem.conv.weight": 5,
    "backbone.bottom_up.s1.b1.f.a.weight": 4,
    "backbone.bottom_up.s2.b1.proj.weight": 3,
    "backbone.bottom_up.s3.b1.f.b.weight": 2,
    "backbone.bottom_up.s4.b1.f.c.weight": 1,
    "backbone.fpn_lateral3.weight": 0,
    "head.bbox_pred.weight": 0,
}


def detector(backbone: str, norm: str = "FrozenBN"):
    """A cfg and its small RetinaNet."""
    cfg = get_cfg()
    cfg.MODEL.META_ARCHITECTURE, cfg.MODEL.DEVICE = "RetinaNetExt", "cpu"
    cfg.MODEL.BACKBONE.FREEZE_AT, cfg.MODEL.FPN.OUT_CHANNELS = 0, 8
    cfg.MODEL.BACKBONE.NAME = "build_fpn_backbone_p6p7"
    cfg.MODEL.RETINANET.NUM_CONVS = 1
    if backbone == "regnet":
        node = cfg.MODEL.REGNET
        cfg.MODEL.FPN.BOTTOM_UP, cfg.MODEL.FPN.IN_FEATURES = "build_regnet_backbone", ["s2", "s3"]
        node.DEPTH, node.W_0, node.W_A, node.W_M, node.GROUP_WIDTH = 6, 8, 8.0, 1.8, 8
        node.OUT_FEATURES, node.NORM, node.STEM_WIDTH = ["s2", "s3", "s4"], norm, 8
        cfg.MODEL.FPN.IN_FEATURES = ["s2", "s3", "s4"]
    else:
        node = cfg.MODEL.RESNETS
        node.DEPTH, node.RES2_OUT_CHANNELS, node.NORM = 18, 64, norm
        node.OUT_FEATURES = cfg.MODEL.FPN.IN_FEATURES = ["res3", "res4", "res5"]
    cfg.MODEL.RETINANET.IN_FEATURES = ["p3", "p4", "p5", "p6", "p7"]
    cfg.MODEL.ANCHOR_GENERATOR.SIZES = [[32], [64], [128], [256], [512]]
    cfg.SOLVER.BASE_LR = 0.5
    return cfg, build_model(cfg)


def settings_by_name(optimizer, model, key: str) -> dict[str, float]:
    names = {id(p): name for name, p in model.named_parameters()}
    groups = optimizer.param_groups
    return {names[id(p)]: group[key] for group in groups for p in group["params"]}


@pytest.mark.parametrize("name", ["SGD", "AdamW"])
@pytest.mark.parametrize(("backbone", "expected"), [("resnet", R18), ("regnet", REGNET)])
def test_each_stage_has_its_learning_rate(backbone, expected, name):
    cfg, model = detector(backbone, norm="BN")
    cfg.SOLVER.OPTIMIZER, cfg.SOLVER.LAYER_LR_DECAY = name, 0.5
    optimizer = build_optimizer(cfg, model)
    rates = settings_by_name(optimizer, model, "lr")
    assert len(rates) == len(list(model.parameters()))
    for parameter, layers_above in expected.items():
        assert rates[parameter] == 0.5 * 0.5**layers_above, parameter
    assert len(set(rates.values())) == 6


def test_norms_and_biases_keep_their_rules():
    cfg, model = detector("resnet", norm="BN")
    cfg.SOLVER.LAYER_LR_DECAY, cfg.SOLVER.BIAS_LR_FACTOR = 0.5, 2.0
    cfg.SOLVER.WEIGHT_DECAY, cfg.SOLVER.WEIGHT_DECAY_NORM = 0.25, 0.125
    cfg.SOLVER.WEIGHT_DECAY_BIAS = 0.0
    optimizer = build_optimizer(cfg, model)
    rates = settings_by_name(optimizer, model, "lr")
    decays = settings_by_name(optimizer, model, "weight_decay")
    found = {
        name: (rates[name], decays[name])
        for name in (
            "backbone.bottom_up.res5.0.conv1.weight",
            "backbone.bottom_up.res5.0.conv1.norm.weight",
            "backbone.bottom_up.res5.0.conv1.norm.bias",
            "head.cls_score.bias",
        )
    }
    assert list(found.values()) == [(0.25, 0.25), (0.25, 0.125), (0.5, 0.0), (1.0, 0.0)]


def test_the_schedule_moves_all_rates_alike():
    cfg, model = detector("resnet")
    cfg.SOLVER.LAYER_LR_DECAY, cfg.SOLVER.WARMUP_ITERS = 0.5, 0
    cfg.SOLVER.MAX_ITER, cfg.SOLVER.STEPS = 10, (1,)
    optimizer = build_optimizer(cfg, model)
    before = [group["lr"] for group in optimizer.param_groups]
    scheduler = build_lr_scheduler(cfg, optimizer)
    optimizer.step()
    scheduler.step()
    after = [group["lr"] for group in optimizer.param_groups]
    assert after == pytest.approx([rate * 0.1 for rate in before])
    assert len(set(after)) == 6


def test_frozen_parameters_stay_out():
    cfg, model = detector("resnet")
    cfg.SOLVER.LAYER_LR_DECAY = 0.5
    model.backbone.bottom_up.stem.requires_grad_(False)
    rates = settings_by_name(build_optimizer(cfg, model), model, "lr")
    assert not [name for name in rates if ".stem." in name]
    # The stem still counts as a layer: freezing it changes no other's rate.
    assert rates["backbone.bottom_up.res2.0.conv1.weight"] == 0.5 * 0.5**4


class Transformer(nn.Module):
    """Parts named as in Detectron2's ViT or Swin, which need timm to be built."""

    def __init__(self, **parts: nn.Module):
        super().__init__()
        self.patch_embed = nn.Conv2d(3, 2, 4)
        self.pos_embed = nn.Parameter(torch.zeros(1))
        for name, part in parts.items():
            self.add_module(name, part)


def test_a_vision_transformer_decays_as_in_detectron2():
    blocks = [{"norm1": nn.LayerNorm(2), "attn": nn.Linear(2, 2)} for _ in range(4)]
    blocks[1]["residual"] = nn.Conv2d(2, 2, 1)
    vit = Transformer(blocks=nn.ModuleList(map(nn.ModuleDict, blocks)))
    pyramid = nn.ModuleDict({"net": vit, "simfp_2": nn.Conv2d(2, 2, 1)})
    model = nn.ModuleDict({"backbone": pyramid, "head": nn.Linear(2, 1)})
    factors = layer_lr_factors(model, 0.5)
    for name, factor in factors.items():
        assert factor == get_vit_lr_decay_rate(name, 0.5, 4), name
    assert factors["backbone.net.pos_embed"] == 0.5**5
    assert factors["backbone.net.blocks.3.attn.weight"] == 0.5
    assert factors["backbone.simfp_2.weight"] == factors["backbone.net.blocks.1.residual.bias"] == 1


def test_the_stages_of_a_swin_transformer_are_layers():
    stages = [nn.ModuleDict({"blocks": nn.ModuleList([nn.Linear(2, 2)])}) for _ in range(2)]
    swin = Transformer(layers=nn.ModuleList(stages), norm0=nn.LayerNorm(2))
    model = nn.ModuleDict({"backbone": nn.ModuleDict({"bottom_up": swin})})
    factors = layer_lr_factors(model, 0.5)
    prefix = "backbone.bottom_up"
    assert factors[f"{prefix}.patch_embed.weight"] == 0.5**3
    assert factors[f"{prefix}.layers.0.blocks.0.weight"] == 0.5**2
    assert factors[f"{prefix}.layers.1.blocks.0.weight"] == 0.5
    assert factors[f"{prefix}.norm0.weight"] == 1.0


def test_a_backbone_inside_of_a_wrapper_is_found():
    wrapper = nn.ModuleDict(
        {"body": nn.ModuleDict({"stem": nn.Linear(1, 1), "a": nn.Linear(1, 1)})}
    )
    model = nn.ModuleDict({"backbone": wrapper})
    factors = layer_lr_factors(model, 0.5)
    assert factors["backbone.body.stem.weight"] == 0.25
    assert factors["backbone.body.a.bias"] == 0.5


@pytest.mark.parametrize("backbone", [nn.Linear(1, 1), nn.ModuleDict({"body": nn.Linear(1, 1)})])
def test_a_backbone_without_layers_is_refused(backbone):
    model = nn.ModuleDict({"backbone": backbone})
    with pytest.raises(ValueError, match="LAYER_LR_DECAY is set, but the parts of Linear"):
        layer_lr_factors(model, 0.5)


def test_one_is_detectron2s_optimizer():
    cfg, model = detector("resnet", norm="BN")
    groups = build_optimizer(cfg, model).param_groups
    assert {group["lr"] for group in groups} == {0.5}
    cfg.SOLVER.LAYER_LR_DECAY = 0.5
    decayed = build_optimizer(cfg, model)
    assert type(decayed) is torch.optim.SGD
    for key in ("momentum", "nesterov", "foreach", "dampening"):
        assert {group[key] for group in decayed.param_groups} == {groups[0][key]}
