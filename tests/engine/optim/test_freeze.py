"""Frozen parts: no gradient, no step, no moving statistics, and everything else as before."""

import copy
import pickle

import pytest
import torch
from detectron2.modeling import build_model
from torch import nn

from retinanet_ext import ConfigError, get_cfg, load_config_file, validate_cfg
from retinanet_ext.engine.optim.freeze import freezable_parts, freeze
from retinanet_ext.engine.trainer import RetinaNetTrainer

PARTS = ["backbone", "fpn", "cls_subnet", "bbox_subnet", "cls_score", "bbox_pred"]


def prefixes(name):
    if name == "fpn":
        return ("backbone.fpn_", "backbone.top_block")
    return ("backbone.bottom_up.",) if name == "backbone" else (f"head.{name}.",)


def test_a_name_stands_for_its_parameters_alone(cfg):
    built = build_model(cfg)
    for name in [*PARTS, "head"]:
        model = copy.deepcopy(built)
        freeze(model, [name])
        expected = prefixes(name) if name != "head" else ("head.",)
        frozen = {k for k, p in model.named_parameters() if not p.requires_grad}
        assert frozen == {k for k, _ in model.named_parameters() if k.startswith(expected)}
        assert frozen


def test_the_parts_cover_the_model(cfg):
    model = build_model(cfg)
    with pytest.raises(ValueError, match=r"FREEZE is .* leaves nothing to train"):
        freeze(model, PARTS)
    assert list(freezable_parts(model)) == ["backbone", "fpn", "head", *PARTS[2:]]


def test_a_backbone_without_a_pyramid_is_one_part():
    model = nn.Module()
    model.backbone, model.head = nn.Linear(1, 1), nn.Module()
    model.head.cls_score = nn.Linear(1, 1)
    assert list(freezable_parts(model)) == ["backbone", "head", "cls_score"]


def test_unknown_names_are_told_with_the_nearest_one(cfg):
    with pytest.raises(KeyError, match=r"FREEZE holds 'cls_subnt'.*Did you mean 'cls_subnet'"):
        freeze(build_model(cfg), ["cls_subnt"])
    cfg.MODEL.RETINANET.FREEZE = ["cls_subnt"]
    with pytest.raises(KeyError, match=r"FREEZE holds 'cls_subnt'.*Did you mean 'cls_subnet'"):
        validate_cfg(cfg)
    for names in (PARTS, ["head"]):
        cfg.MODEL.RETINANET.FREEZE = names
        validate_cfg(cfg)
    cfg.MODEL.RETINANET.HEAD = "SharedTowerHead"
    cfg.MODEL.RETINANET.FREEZE = ["subnet"]
    validate_cfg(cfg)
    freeze(build_model(cfg), ["subnet"])


def gradients(model, batch):
    sum(model(batch).values()).backward()
    return {name: p.grad for name, p in model.named_parameters()}


@pytest.mark.parametrize("fused", [-1, 0])
def test_gradients_of_the_rest_stay_the_same(cfg, fused):
    cfg.MODEL.RETINANET.FUSED_CLS_LOSS_MIN_CLASSES = fused
    model, batch = build_model(cfg), next(iter(RetinaNetTrainer.build_train_loader(cfg)))
    expected = gradients(copy.deepcopy(model), batch)
    for names in (["backbone", "cls_score"], ["fpn", "bbox_subnet"], ["cls_subnet", "bbox_pred"]):
        frozen = copy.deepcopy(model)
        freeze(frozen, names)
        for key, grad in gradients(frozen, batch).items():
            if any(key.startswith(prefixes(name)) for name in names):
                assert grad is None
            else:
                torch.testing.assert_close(grad, expected[key], msg=f"{key} without {names}")


def with_batch_norms(cfg):
    cfg.MODEL.RESNETS.NORM = cfg.MODEL.FPN.NORM = "BN"
    cfg.MODEL.RETINANET.NORM = "BN"
    return build_model(cfg)


def frozen_norms(model):
    return [m for m in model.backbone.bottom_up.modules() if isinstance(m, nn.BatchNorm2d)]


@pytest.mark.parametrize(
    "duplicate",
    [lambda x: x, copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))],
    ids=["itself", "deepcopy", "pickle"],
)
def test_frozen_batch_norms_stay_in_evaluation_mode(cfg, duplicate):
    model = with_batch_norms(cfg)
    freeze(model, ["backbone", "cls_subnet"])
    model = duplicate(model)
    before = {k: v.clone() for k, v in model.named_buffers()}
    assert model.train() is model and model.training
    norms = [x for x in model.modules() if isinstance(x, nn.BatchNorm2d)]
    frozen = frozen_norms(model)
    assert frozen and not any(x.training for x in frozen)
    assert not any(x.training for x in model.head.cls_subnet if isinstance(x, nn.BatchNorm2d))
    assert sum(x.training for x in norms) > 0
    model([{"image": torch.rand(3, 64, 64) * 255, "instances": no_instances()}] * 2)
    moved = {k for k, v in model.named_buffers() if not torch.equal(v, before[k])}
    assert not [k for k in moved if k.startswith(("backbone.bottom_up.", "head.cls_subnet."))]
    assert [k for k in moved if k.startswith("head.bbox_subnet.")]
    assert [k for k in moved if k.startswith("backbone.fpn_")]
    assert not model.eval().training and not any(x.training for x in model.modules())


def no_instances():
    from detectron2.structures import Boxes, Instances

    return Instances((64, 64), gt_boxes=Boxes(torch.zeros(0, 4)), gt_classes=torch.zeros(0).long())


@pytest.mark.parametrize("optimizer", ["SGD", "AdamW"])
def test_training_moves_the_rest_alone(cfg, optimizer):
    cfg.MODEL.RETINANET.FREEZE, cfg.SOLVER.OPTIMIZER = ["backbone", "fpn", "cls_subnet"], optimizer
    cfg.SOLVER.MAX_ITER, cfg.DATASETS.TEST = 2, ()
    trainer = RetinaNetTrainer(cfg)
    before = {k: p.detach().clone() for k, p in trainer.model.named_parameters()}
    trainer.train()
    moved = {k for k, p in trainer.model.named_parameters() if not torch.equal(p, before[k])}
    assert moved == {k for k in before if k.startswith("head.") and "cls_subnet" not in k}


def test_nothing_is_frozen_by_default(cfg):
    model = build_model(cfg)
    freeze(model, cfg.MODEL.RETINANET.FREEZE)
    assert all(p.requires_grad for p in model.parameters())


def test_a_model_without_a_head_is_frozen_by_the_names_of_its_parts():
    cfg = get_cfg()
    load_config_file(cfg, "configs/quickstart_faster_rcnn.yaml")
    cfg.MODEL.DEVICE = "cpu"
    model = build_model(cfg)
    freeze(model, ["backbone", "roi_heads.box_head"])
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trained and not any(x.startswith("backbone.bottom_up") for x in trained)
    assert not any(x.startswith("roi_heads.box_head") for x in trained)
    assert any(x.startswith("roi_heads.box_predictor") for x in trained)
    with pytest.raises(ConfigError, match=r"'heads'.*roi_heads"):
        freeze(model, ["heads"])
