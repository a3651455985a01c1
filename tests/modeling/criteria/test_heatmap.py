"""HeatmapFocal as an entry of the registry: its settings, with a heat map and without."""

from __future__ import annotations

import pytest
import torch

from retinanet_ext import get_cfg
from retinanet_ext.losses import sum_of_heatmap_focal_loss
from retinanet_ext.modeling import FocalLoss, HeatmapFocal
from retinanet_ext.registry import CLS_LOSS_REGISTRY
from retinanet_ext.structures import DenseTargets


def targets(**further) -> DenseTargets:
    """Four anchors of two classes: class 0, background, ignored, background."""
    return DenseTargets(
        torch.tensor([[0, 2, -1, 2]]), torch.zeros(1, 4, 4), num_classes=2, **further
    )


def test_the_config_sets_it():
    cfg = get_cfg()
    node = cfg.MODEL.RETINANET
    node.CLS_LOSS, node.FOCAL_LOSS_GAMMA, node.HEATMAP_FOCAL_BETA = "HeatmapFocal", 1.5, 3.0
    loss = CLS_LOSS_REGISTRY.build(cfg)
    assert isinstance(loss, HeatmapFocal) and (loss.gamma, loss.beta) == (1.5, 3.0)


def test_it_reads_the_heat_of_the_targets():
    logits, heat = [torch.randn(1, 2, 2, 2)], torch.rand(1, 4, 2)
    given = targets(heat=heat)
    expected = sum_of_heatmap_focal_loss(logits, heat, given.labels)
    torch.testing.assert_close(HeatmapFocal()(logits, given), expected)


def test_without_heat_it_is_the_focal_loss_without_alpha():
    logits = [torch.randn(1, 2, 2, 2)]
    expected = FocalLoss(alpha=-1, gamma=2.0)(logits, targets())
    torch.testing.assert_close(HeatmapFocal()(logits, targets()), expected)


def test_what_it_does_not_count_is_refused():
    logits = [torch.zeros(1, 2, 2, 2)]
    with pytest.raises(ValueError, match="the loss HeatmapFocal counts each of them once"):
        HeatmapFocal()(logits, targets(weights=torch.ones(1, 4)))
    with pytest.raises(ValueError, match="the loss HeatmapFocal knows one true class"):
        HeatmapFocal()(logits, targets(extra=torch.tensor([[0, 0, 1]])))
    with pytest.raises(ValueError, match="beta of the heat map focal loss"):
        HeatmapFocal(beta=-1.0)


def test_heat_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"heat must be \(N, R, K\) = \(1, 4, 2\)"):
        targets(heat=torch.zeros(1, 4, 3))
