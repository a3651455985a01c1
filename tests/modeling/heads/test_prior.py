"""What PRIOR_PROB is for (Sec. 3.3): background does not swamp the first iteration of a fresh head.

1000 anchors of background for each object. A fresh head gives every entry about pi, so with cross
entropy an object costs -log(pi) and the background around it -1000 log(1 - pi) per class.
"""

from __future__ import annotations

import math

import pytest
import torch
from detectron2.layers import ShapeSpec
from torch import Tensor

from retinanet_ext import get_cfg
from retinanet_ext.registry import CLS_LOSS_REGISTRY, DENSE_HEAD_REGISTRY
from retinanet_ext.structures import DenseTargets

IMBALANCE = 1000
OBJECTS = 7
HEIGHT, WIDTH = 77, 91  # 7 * 1001 locations, one anchor at each


def first_losses(loss: str, prior_prob: float, num_classes: int) -> tuple[Tensor, Tensor]:
    """Foreground's and background's part of a fresh head's loss, divided by the objects."""
    cfg = get_cfg()
    node = cfg.MODEL.RETINANET
    node.PRIOR_PROB, node.NUM_CLASSES, node.NUM_CONVS = prior_prob, num_classes, 2
    criterion = CLS_LOSS_REGISTRY.get(loss)(cfg)
    head = DENSE_HEAD_REGISTRY.get(node.HEAD)(cfg, [ShapeSpec(channels=16, stride=8)], 1)
    logits, _ = head([torch.randn(1, 16, HEIGHT, WIDTH)])
    labels = torch.full((1, HEIGHT * WIDTH), num_classes)
    labels[0, :: IMBALANCE + 1] = 0
    is_object = labels == 0
    assert is_object.sum() == OBJECTS and (~is_object).sum() == IMBALANCE * OBJECTS
    parts = []
    for ignored in (~is_object, is_object):
        part = labels.masked_fill(ignored, -1)
        targets = DenseTargets(part, torch.zeros(*part.shape, 4), num_classes)
        parts.append(criterion(logits, targets).detach() / OBJECTS)
    return parts[0], parts[1]


def background_share(loss: str, prior_prob: float, num_classes: int = 1) -> float:
    foreground, background = first_losses(loss, prior_prob, num_classes)
    return (background / (foreground + background)).item()


@pytest.mark.parametrize("loss", ["BCE", "FocalLoss"])
@pytest.mark.parametrize("num_classes", [1, 80])
def test_without_a_prior_background_is_almost_all_of_the_first_loss(loss: str, num_classes: int):
    assert background_share(loss, 0.5, num_classes) > 0.998


def test_with_the_prior_cross_entropy_hears_the_objects():
    # log(0.01) = -4.6 of an object beside 1000 log(0.99) = -10.05 of background
    foreground, background = first_losses("BCE", 0.01, num_classes=1)
    assert foreground.item() == pytest.approx(-math.log(0.01), rel=0.02)
    assert background.item() == pytest.approx(-IMBALANCE * math.log(0.99), rel=0.02)
    assert 0.6 < background_share("BCE", 0.01) < 0.75


@pytest.mark.parametrize(("num_classes", "most"), [(1, 0.01), (80, 0.1)])
def test_with_the_prior_objects_are_almost_all_of_the_first_focal_loss(num_classes: int, most):
    assert background_share("FocalLoss", 0.01, num_classes) < most


def test_with_80_classes_the_prior_alone_does_not_balance_cross_entropy():
    # but the first loss is 60 times smaller, so that training does not diverge
    with_prior, without = (sum(first_losses("BCE", pi, 80)) for pi in (0.01, 0.5))
    assert background_share("BCE", 0.01, 80) > 0.99
    assert 60 < without / with_prior < 75
