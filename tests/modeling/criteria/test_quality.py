"""Registered quality losses, and the quality of boxes that they are told."""

from __future__ import annotations

import math

import pytest
import torch
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.structures import Boxes, pairwise_iou

from retinanet_ext import get_cfg
from retinanet_ext.losses import sigmoid_quality_focal_loss, sigmoid_varifocal_loss
from retinanet_ext.modeling import QualityFocalLoss, VarifocalLoss, box_quality
from retinanet_ext.registry import CLS_LOSS_REGISTRY
from retinanet_ext.structures import DenseTargets

TRANSFORM = Box2BoxTransform(weights=(1.0, 1.0, 1.0, 1.0))
ANCHOR = torch.tensor([[10.0, 10.0, 30.0, 50.0]])
NO_DELTAS = torch.zeros(1, 4)


def build(name: str, **keys):
    cfg = get_cfg()
    cfg.MODEL.RETINANET.NUM_CLASSES = 3
    for key, value in keys.items():
        assert key in cfg.MODEL.RETINANET
        cfg.MODEL.RETINANET[key] = value
    return CLS_LOSS_REGISTRY.get(name)(cfg)


def inputs():
    labels = torch.tensor([[0, 3, -1, 2, 3, 1, 3, 3]])
    targets = DenseTargets(labels, torch.zeros(1, 8, 4), 3)
    return [torch.randn(1, 6, 2, 2)], targets, torch.rand(1, 8)


def test_the_config_sets_quality_focal_loss():
    criterion = build("QualityFocalLoss", QUALITY_FOCAL_BETA=1.5, LOSS_KERNEL="reference")
    assert (criterion.beta, criterion.kernel, criterion.needs_quality) == (1.5, "reference", True)
    logits, targets, quality = inputs()
    expected = sigmoid_quality_focal_loss(logits, targets.labels, quality, 3, 1.5)
    torch.testing.assert_close(criterion(logits, targets, quality), expected)


def test_the_config_sets_varifocal_loss():
    criterion = build("VarifocalLoss", VARIFOCAL_ALPHA=0.5, VARIFOCAL_GAMMA=1.0)
    assert (criterion.alpha, criterion.gamma, criterion.needs_quality) == (0.5, 1.0, True)
    logits, targets, quality = inputs()
    expected = sigmoid_varifocal_loss(logits, targets.labels, quality, 3, 0.5, 1.0)
    torch.testing.assert_close(criterion(logits, targets, quality), expected)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: QualityFocalLoss(beta=0.5), "beta of the quality focal loss"),
        (lambda: VarifocalLoss(alpha=-1.0), "alpha of the varifocal loss"),
        (lambda: VarifocalLoss(kernel="cuda"), "kernel must be one of"),
    ],
)
def test_bad_settings_are_refused(make, message: str):
    with pytest.raises(ValueError, match=message):
        make()


def test_quality_is_detectron2s_iou_of_the_decoded_boxes():
    corners = torch.rand(64, 2) * 50
    anchors = torch.cat([corners, corners + 5 + torch.rand(64, 2) * 40], dim=1)
    gt_boxes = anchors + torch.randn(64, 4)
    deltas = torch.randn(64, 4) * 0.3
    boxes = TRANSFORM.apply_deltas(deltas, anchors)
    expected = pairwise_iou(Boxes(boxes), Boxes(gt_boxes)).diagonal()
    got = box_quality(deltas.requires_grad_(), anchors, gt_boxes, TRANSFORM)
    assert not got.requires_grad
    assert expected.min() < 0.3 and expected.max() > 0.7
    torch.testing.assert_close(got, expected)


@pytest.mark.parametrize(
    ("deltas", "gt_box", "expected"),
    [
        ([0.0, 0.0, 0.0, 0.0], [10.0, 10.0, 30.0, 50.0], 1.0),
        ([0.0, 0.0, 0.0, 0.0], [10.0, 10.0, 30.0, 30.0], 0.5),
        ([0.0, 0.0, 0.0, 0.0], [30.0, 50.0, 10.0, 10.0], 1.0),  # between its corners
        ([0.0, 0.0, 0.0, 0.0], [20.0, 20.0, 20.0, 20.0], 0.0),  # no area
        ([0.0, 0.0, -1e4, -1e4], [20.0, 30.0, 20.0, 30.0], 0.0),  # neither of the two has
        ([math.nan, 0.0, 0.0, 0.0], [10.0, 10.0, 30.0, 50.0], 0.0),
        ([0.0, math.inf, 0.0, 0.0], [10.0, 10.0, 30.0, 50.0], 0.0),
        ([0.0, 0.0, math.nan, 0.0], [10.0, 10.0, 30.0, 50.0], 0.0),
    ],
)
def test_quality_at_the_edges(deltas: list, gt_box: list, expected: float):
    got = box_quality(torch.tensor([deltas]), ANCHOR, torch.tensor([gt_box]), TRANSFORM)
    assert got.item() == pytest.approx(expected, abs=1e-6)
    assert 0 <= got.item() <= 1


def test_quality_of_half_precision_deltas_is_float32_and_of_none_is_empty():
    assert box_quality(NO_DELTAS.half(), ANCHOR, ANCHOR, TRANSFORM).dtype == torch.float32
    assert box_quality(NO_DELTAS[:0], ANCHOR[:0], ANCHOR[:0], TRANSFORM).shape == (0,)
