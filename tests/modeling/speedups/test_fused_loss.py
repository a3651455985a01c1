"""Parts are computed in place of the whole only where they give what the whole gives."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from retinanet_ext import get_cfg
from retinanet_ext.modeling.criteria.classification import BCE, BalancedBCE, FocalLoss
from retinanet_ext.modeling.heads.build import RetinaNetHead, SharedTowerHead
from retinanet_ext.modeling.speedups.fused_loss import fuses_cls_loss


class SmoothedFocalLoss(FocalLoss):
    def forward(self, logits, targets):
        return super().forward([0.9 * level for level in logits], targets)


class ScaledHead(RetinaNetHead):
    def forward(self, features):
        logits, deltas = super().forward(features)
        return [2 * level for level in logits], deltas


class RenamedHead(RetinaNetHead):
    partial_outputs = RetinaNetHead.partial_outputs


class RenamedFocalLoss(FocalLoss):
    from_features = FocalLoss.from_features


def fuses(head_class: type, loss_class: type, num_anchors: tuple[int, ...] = (9, 9)) -> bool:
    node = get_cfg().MODEL.RETINANET
    node.FUSED_CLS_LOSS_MIN_CLASSES = 0
    # Nothing is computed, so that the head need not be built whole.
    head = head_class.__new__(head_class)
    nn.Module.__init__(head)
    head.cls_score = nn.Identity()
    return fuses_cls_loss(node, head, loss_class(), list(num_anchors))


@pytest.mark.parametrize("head", [RetinaNetHead, SharedTowerHead])
@pytest.mark.parametrize("loss", [FocalLoss, BCE, BalancedBCE])
def test_this_packages_heads_and_focal_losses_can_do_without_logits(head: type, loss: type):
    assert fuses(head, loss)
    assert not fuses(head, loss, num_anchors=(9, 6))


def test_a_subclass_opts_in_again():
    assert fuses(RenamedHead, RenamedFocalLoss)
    assert not fuses(type("Below", (RetinaNetHead,), {}), FocalLoss)
    assert not fuses(RetinaNetHead, type("Below", (FocalLoss,), {}))


def test_what_changes_the_logits_or_their_loss_gets_logits(caplog):
    with caplog.at_level("INFO", logger="retinanet_ext"):
        assert not fuses(RetinaNetHead, SmoothedFocalLoss)
        assert not fuses(ScaledHead, FocalLoss)
        assert not fuses(RetinaNetHead, torch.nn.Identity)
        assert not fuses(torch.nn.Identity, FocalLoss)
    assert caplog.text.count("FUSED_CLS_LOSS_MIN_CLASSES has no effect") == 4
