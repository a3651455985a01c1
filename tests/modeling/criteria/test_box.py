"""Box losses as the config builds them: on deltas and anchors, for odd boxes, weighted."""

from __future__ import annotations

import math

import pytest
import torch
from detectron2.modeling.box_regression import Box2BoxTransform

from retinanet_ext import get_cfg
from retinanet_ext.losses import iou_box_loss
from retinanet_ext.modeling import L1, SmoothL1, WeightedBoxLoss
from retinanet_ext.modeling.criteria.box import build_box_loss

NAMES = ["SmoothL1", "L1", "IoU", "GIoU", "DIoU", "CIoU"]
ANCHORS = torch.tensor([[0.0, 0, 32, 32], [100, 100, 164, 132], [50, 40, 90, 120]])
GT_BOXES = torch.tensor([[4.0, 2, 30, 40], [110, 90, 150, 140], [40, 40, 80, 130]])
TRANSFORM = Box2BoxTransform((1.0, 1, 1, 1))


def build(name: str, **changes) -> torch.nn.Module:
    cfg = get_cfg()
    cfg.MODEL.RETINANET.BBOX_REG_LOSS_TYPE = name
    for key, value in changes.items():
        cfg.MODEL.RETINANET[key] = value
    return build_box_loss(cfg)


@pytest.mark.parametrize("name", NAMES)
def test_perfect_deltas_cost_nothing_and_others_fall(name: str):
    loss = build(name)
    perfect = TRANSFORM.get_deltas(ANCHORS, GT_BOXES)
    costs = [loss(perfect * share, ANCHORS, GT_BOXES).item() for share in (0.0, 0.5, 0.9, 1.0)]
    assert costs == sorted(costs, reverse=True)
    assert costs[0] > 0.1 and costs[-1] == pytest.approx(0, abs=1e-5)


def test_iou_losses_see_the_decoded_boxes():
    deltas = torch.randn(3, 4, generator=torch.Generator().manual_seed(0)) * 0.3
    boxes = TRANSFORM.apply_deltas(deltas, ANCHORS)
    for name in ("IoU", "GIoU", "DIoU", "CIoU"):
        expected = iou_box_loss(boxes, GT_BOXES, name.lower())
        assert torch.equal(build(name)(deltas, ANCHORS, GT_BOXES), expected)


def test_l1_is_smooth_l1_with_beta_0_whatever_the_key_says():
    deltas = torch.randn(3, 4, generator=torch.Generator().manual_seed(0)) * 0.1
    l1 = build("L1", SMOOTH_L1_LOSS_BETA=0.5)(deltas, ANCHORS, GT_BOXES)
    expected = (deltas - TRANSFORM.get_deltas(ANCHORS, GT_BOXES)).abs().sum()
    torch.testing.assert_close(l1, expected)
    smooth = build("SmoothL1", SMOOTH_L1_LOSS_BETA=0.0)(deltas, ANCHORS, GT_BOXES)
    assert torch.equal(l1, smooth)
    assert build("SmoothL1", SMOOTH_L1_LOSS_BETA=0.5)(deltas, ANCHORS, GT_BOXES) < l1


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("name", NAMES)
def test_odd_boxes_have_finite_losses_and_gradients(name: str, dtype: torch.dtype):
    gt_boxes = torch.tensor(
        [
            [10.0, 10, 10, 10],  # no area
            [10.0, 10, 10, 50],  # no width
            [40.0, 50, 4, 8],  # inverted
            [40.0, 8, 4, 50],  # inverted in x
            [1e6, 1e6, 1e6 + 8, 1e6 + 8],  # far
            [0.0, 0, 32, 32],  # the anchor
        ]
    )
    anchors = ANCHORS[:1].expand(len(gt_boxes), 4)
    deltas = torch.zeros(len(gt_boxes), 4, dtype=dtype)
    deltas[:, 2] = -9.0  # almost no width
    for predicted in (deltas, torch.zeros_like(deltas)):
        predicted.requires_grad_()
        loss = build(name)(predicted, anchors, gt_boxes)
        loss.backward()
        assert loss.dtype == torch.float32 and loss.isfinite()
        assert predicted.grad.isfinite().all() and predicted.grad.any()


def test_object_without_area_asks_for_a_bounded_size_only():
    # log(1e-4) for width and height times their weights, whereas the centre is as encoded.
    loss = L1(box2box_transform=Box2BoxTransform((1.0, 1, 2, 3)))
    got = loss(torch.zeros(1, 4), ANCHORS[:1], torch.tensor([[16.0, 20, 16, 20]]))
    assert got.item() == pytest.approx(4 / 32 + (2 + 3) * math.log(1e4), rel=1e-5)


@pytest.mark.parametrize("name", ["SmoothL1", "GIoU"])
def test_weight_multiplies_value_and_gradient(name: str):
    gradients = []
    for changes in ({}, {"BOX_LOSS_WEIGHT": 2.5}):
        deltas = torch.full((3, 4), 0.2, requires_grad=True)
        loss = build(name, **changes)(deltas, ANCHORS, GT_BOXES)
        loss.backward()
        gradients.append((loss.detach(), deltas.grad))
    (plain, plain_grad), (weighted, weighted_grad) = gradients
    torch.testing.assert_close(weighted, 2.5 * plain)
    torch.testing.assert_close(weighted_grad, 2.5 * plain_grad)


def test_weight_0_leaves_a_gradient_of_0_and_weight_1_the_loss_itself():
    deltas = torch.full((3, 4), 0.2, requires_grad=True)
    build("CIoU", BOX_LOSS_WEIGHT=0.0)(deltas, ANCHORS, GT_BOXES).backward()
    assert deltas.grad.eq(0).all()
    assert isinstance(build("smooth_l1"), SmoothL1)


@pytest.mark.parametrize("weight", [-0.5, math.inf, math.nan])
def test_weight_out_of_range_is_refused_by_its_key(weight: float):
    with pytest.raises(ValueError, match=r"BOX_LOSS_WEIGHT .* got"):
        build("SmoothL1", BOX_LOSS_WEIGHT=weight)
    with pytest.raises(ValueError, match="BOX_LOSS_WEIGHT"):
        WeightedBoxLoss(build("L1"), weight)
