"""Heads: prior, shapes, sharing of weights across levels, anchors that differ between levels."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F
from detectron2.layers import ShapeSpec
from detectron2.modeling.meta_arch.retinanet import RetinaNetHead as Detectron2Head
from torch import nn

from retinanet_ext import get_cfg
from retinanet_ext.modeling import RetinaNetHead, SharedTowerHead
from retinanet_ext.modeling.postprocess.gather import gather_deltas
from retinanet_ext.registry import DENSE_HEAD_REGISTRY
from retinanet_ext.structures import DenseTargets

LEVELS = [ShapeSpec(channels=8, stride=s) for s in (8, 16, 32)]
HEADS = [RetinaNetHead, SharedTowerHead]
both_heads = pytest.mark.parametrize("head_class", HEADS)


def arguments(**changes) -> dict:
    return {
        "input_shape": LEVELS,
        "num_classes": 5,
        "num_anchors": 2,
        "conv_dims": [8, 8],
        **changes,
    }


def build(head_class=RetinaNetHead, **changes):
    torch.manual_seed(0)
    return head_class(**arguments(**changes))


def features(channels: int = 8) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(3, channels, size, size + 1, generator=generator) for size in (8, 4, 2)]


def tower(head) -> nn.Sequential:
    return head.cls_subnet if isinstance(head, RetinaNetHead) else head.subnet


@pytest.mark.parametrize("norm", ["", "GN", "BN", "SyncBN"])
@pytest.mark.parametrize("conv_dims", [[], [8, 8], [16]])
@both_heads
def test_outputs_have_the_promised_shapes(head_class, norm: str, conv_dims: list[int]):
    if norm == "GN":
        conv_dims = [dim * 4 for dim in conv_dims]  # Detectron2's GN has 32 groups
    head = build(head_class, norm=norm, conv_dims=conv_dims).eval()
    logits, deltas = head(features())
    assert [tuple(x.shape) for x in logits] == [(3, 10, 8, 9), (3, 10, 4, 5), (3, 10, 2, 3)]
    assert [tuple(x.shape) for x in deltas] == [(3, 8, 8, 9), (3, 8, 4, 5), (3, 8, 2, 3)]


@pytest.mark.parametrize("norm", ["", "GN", "BN", "SyncBN", "LN", "FrozenBN"])
@pytest.mark.parametrize("training", [True, False])
def test_head_equals_detectron2s(norm: str, training: bool):
    if norm == "SyncBN":
        training = False  # it trains on GPUs only
    levels = [ShapeSpec(channels=32, stride=s) for s in (8, 16, 32)]
    changes = {"input_shape": levels, "conv_dims": [32, 64], "norm": norm}
    torch.manual_seed(0)
    theirs = Detectron2Head(**arguments(**changes)).train(training)
    ours = build(**changes).train(training)
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    assert all(torch.equal(x, theirs.state_dict()[k]) for k, x in ours.state_dict().items())
    for _ in range(2):  # the second call sees what the first left in the norms
        for got, expected in zip(ours(features(32)), theirs(features(32)), strict=True):
            torch.testing.assert_close(got, expected, rtol=0, atol=0)
    for name, value in theirs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], value, rtol=0, atol=0, msg=name)


@pytest.mark.parametrize("prior", [0.01, 0.5])
@both_heads
def test_fresh_head_gives_every_anchor_the_prior(head_class, prior: float):
    logits, _ = build(head_class, prior_prob=prior)(features())
    mean = torch.cat([x.sigmoid().flatten() for x in logits]).mean().item()
    assert mean == pytest.approx(prior, rel=1e-2)


def test_subnets_have_one_shape_and_separate_weights():
    head = build()
    ours = [tuple(p.shape) for p in head.cls_subnet.parameters()]
    assert ours == [tuple(p.shape) for p in head.bbox_subnet.parameters()]
    assert not torch.equal(head.cls_subnet[0].weight, head.bbox_subnet[0].weight)


def test_shared_tower_feeds_both_predictors():
    head = build(SharedTowerHead)
    names = {name.split(".")[0] for name in head.state_dict()}
    assert names == {"subnet", "cls_score", "bbox_pred"}
    logits, deltas = head(features())
    for x, level_logits, level_deltas in zip(features(), logits, deltas, strict=True):
        for conv in (head.subnet[0], head.subnet[2]):
            x = F.conv2d(x, conv.weight, conv.bias, padding=1).relu()
        for conv, got in ((head.cls_score, level_logits), (head.bbox_pred, level_deltas)):
            torch.testing.assert_close(got, F.conv2d(x, conv.weight, conv.bias, padding=1))


@both_heads
def test_parts_of_the_forward_pass_give_what_the_whole_gives(head_class):
    head = build(head_class)
    logits, deltas = head(features())
    parts = head.outputs(features(), logits=False)
    assert parts.logits is None and all(map(torch.equal, parts.deltas, deltas))
    pairs = zip(parts.cls_features, logits, strict=True)
    assert all(torch.equal(head.cls_score(x), y) for x, y in pairs)


@both_heads
def test_partial_outputs_are_those_of_the_forward_pass(head_class):
    head = build(head_class)
    labels = torch.full((3, 8 * 9 * 2 + 4 * 5 * 2 + 2 * 3 * 2), 5)
    labels[1, 7], labels[2, 150], labels[0, 190] = 0, 4, -1
    targets = DenseTargets(labels, torch.zeros(*labels.shape, 4), num_classes=5)
    whole = head(features())
    for wanted in itertools.product(("", "cls_features"), ("", "positive_deltas")):
        parts = head.partial_outputs(features(), targets, set(wanted))
        assert (parts.logits is None) == ("cls_features" in wanted)
        logits = parts.logits or [head.cls_score(x) for x in parts.cls_features]
        assert all(map(torch.equal, logits, whole.logits))
        rows = parts.positive_deltas
        if rows is None:
            assert all(map(torch.equal, parts.deltas, whole.deltas))
            rows = gather_deltas(parts.deltas, *targets.pos_mask.nonzero(as_tuple=True))
        else:
            assert head_class is RetinaNetHead and "positive_deltas" in wanted
        expected = gather_deltas(whole.deltas, *targets.pos_mask.nonzero(as_tuple=True))
        torch.testing.assert_close(rows, expected)


@both_heads
def test_weights_are_shared_across_levels(head_class):
    head = build(head_class).eval()
    same = [features()[0]] * 3
    logits, deltas = head(same)
    assert torch.equal(logits[0], logits[2]) and torch.equal(deltas[0], deltas[1])


@both_heads
def test_batch_norm_keeps_statistics_per_level_and_shares_the_rest(head_class):
    head = build(head_class, norm="BN").train()
    head([x + 10 * i for i, x in enumerate(features())])
    norms = tower(head)[1]
    assert len(norms) == 3
    means = [bn.running_mean for bn in norms]
    assert not torch.allclose(means[0], means[1], atol=1e-3)
    # A shared tower runs once for both predictors, so that a step counts once.
    assert [bn.num_batches_tracked.item() for bn in norms] == [1, 1, 1]
    assert {name for name, _ in norms.named_parameters()} == {"weight", "bias"}


@both_heads
def test_shared_batch_norm_has_one_set_of_statistics(head_class):
    norms = tower(build(head_class, norm="BN", norm_per_level="shared"))
    assert type(norms[1]).__name__ == "BatchNorm2d"


@pytest.mark.parametrize("norm", ["GN", "BN"])
@both_heads
def test_norms_per_level_are_those_of_their_level_alone(head_class, norm: str):
    levels = [ShapeSpec(channels=32, stride=s) for s in (8, 16, 32)]
    changes = {"input_shape": levels, "conv_dims": [32], "norm": norm}
    head = build(head_class, norm_per_level="per_level", **changes).train()
    with torch.no_grad():
        for i, level_norm in enumerate(tower(head)[1]):
            level_norm.weight.fill_(1 + i)
    alone = build(head_class, norm_per_level="shared", **changes).train()
    for _ in range(2):
        got = [x.detach() for x in head.tower_features(features(32))[0]]
    for i, x in enumerate(features(32)):
        # ReLU of a scaled norm without bias is the scaled ReLU.
        expected = alone.tower_features([x])[0][0] * (1 + i)
        torch.testing.assert_close(got[i], expected)
    head(features(32))[0][1].sum().backward()
    given = [level_norm.weight.grad is not None for level_norm in tower(head)[1]]
    assert given == [False, True, False]


def cfg(**retinanet):
    cfg = get_cfg()
    cfg.MODEL.RETINANET.NUM_CLASSES = 5
    for key, value in retinanet.items():
        cfg.MODEL.RETINANET[key] = value
    return cfg


@pytest.mark.parametrize("name", ["RetinaNetHead", "SharedTowerHead"])
def test_config_sets_depth_width_norm_and_regressor(name: str):
    levels = [ShapeSpec(channels=8, stride=s) for s in (8, 16)]
    node = {
        "HEAD": name,
        "NUM_CONVS": 3,
        "HEAD_WIDTH": 64,
        "NORM": "GN",
        "NORM_PER_LEVEL": "per_level",
        "CLS_AGNOSTIC_BBOX_REG": False,
    }
    head = DENSE_HEAD_REGISTRY.get(name)(cfg(**node), levels, 3)
    convs = [m for m in tower(head) if isinstance(m, nn.Conv2d)]
    assert [m.out_channels for m in convs] == [64, 64, 64]
    assert [type(m).__mro__[1].__name__ for m in tower(head)[1]] == ["GroupNorm"] * 2
    assert (head.cls_score.out_channels, head.bbox_pred.out_channels) == (15, 60)
    head = DENSE_HEAD_REGISTRY.get(name)(cfg(NUM_CONVS=1), levels, 3)
    assert tower(head)[0].out_channels == 8


@pytest.mark.parametrize("agnostic", [True, False])
@both_heads
def test_levels_with_fewer_anchors_use_the_first_channels(head_class, agnostic: bool):
    changes = {"cls_agnostic_bbox_reg": agnostic}
    head = build(head_class, num_anchors=[3, 1, 2], **changes)
    full = build(head_class, num_anchors=3, **changes)
    assert head.state_dict().keys() == full.state_dict().keys()
    full.load_state_dict(head.state_dict())
    per_anchor = 4 if agnostic else 4 * 5
    for got, dense, channels in zip(
        head(features()), full(features()), (5, per_anchor), strict=True
    ):
        for level, all_anchors, count in zip(got, dense, (3, 1, 2), strict=True):
            assert level.shape[1] == count * channels
            torch.testing.assert_close(level, all_anchors[:, : count * channels])


def test_nonsense_is_refused_by_name():
    with pytest.raises(ValueError, match="PRIOR_PROB"):
        build(prior_prob=1.0)
    with pytest.raises(ValueError, match="same channels"):
        build(input_shape=[*LEVELS, ShapeSpec(channels=4, stride=64)])
    with pytest.raises(ValueError, match=r"NORM_PER_LEVEL is 'per-level'.*per_level"):
        build(norm_per_level="per-level")
    with pytest.raises(KeyError, match="NORM is 'Bn'"):
        build(norm="Bn")
    with pytest.raises(ValueError, match=r"each of 3 levels, got \[2, 3\]"):
        build(num_anchors=[2, 3])
