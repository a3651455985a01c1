"""Anchors inside of ignored boxes leave the loss, and no others do."""

from __future__ import annotations

import pytest
import torch
from detectron2.structures import Boxes

from retinanet_ext import get_cfg, validate_cfg
from retinanet_ext.modeling.assigners.ignore_regions import ignore_anchors
from retinanet_ext.structures import DenseTargets

K = 3
ANCHORS = [
    Boxes(torch.tensor([[0.0, 0, 10, 10], [5.0, 0, 15, 10]])),
    Boxes(torch.tensor([[0.0, 0, 40, 40], [80.0, 80, 90, 90], [60.0, 60, 60, 70]])),
]


def targets_of(labels: list[list[int]]) -> DenseTargets:
    tensor = torch.tensor(labels)
    return DenseTargets(tensor, torch.zeros(*tensor.shape, 4), K)


def boxes(*rows: list[float]) -> Boxes:
    return Boxes(torch.tensor(rows).reshape(-1, 4))


def test_the_share_of_the_anchors_own_area_counts():
    # Shares of [0, 0, 10, 10]: 1, 50/100, 100/1600, 0; the last anchor has no area.
    ignored, background = boxes([0.0, 0, 10, 10]), targets_of([[K] * 5])
    for thresh, expected in ((0.5, [-1, -1, K, K, K]), (0.51, [-1, K, K, K, K])):
        assert ignore_anchors(background, ANCHORS, [ignored], thresh).labels.tolist() == [expected]
    # All of a small anchor lies in a large box, whatever the IoU of the two.
    large = ignore_anchors(background, ANCHORS, [boxes([0.0, 0, 100, 100])], 1.0)
    assert large.labels.tolist() == [[-1, -1, -1, -1, K]]


def test_only_background_becomes_ignored():
    targets = targets_of([[2, 0, K, -1, K]])
    result = ignore_anchors(targets, ANCHORS, [boxes([0.0, 0, 100, 100])], 0.5)
    assert result.labels.tolist() == [[2, 0, -1, -1, K]]
    assert targets.labels.tolist() == [[2, 0, K, -1, K]]  # the caller's stay
    assert result.boxes is targets.boxes


def test_shares_of_several_boxes_do_not_add_up():
    halves = boxes([0.0, 0, 4, 10], [4.0, 0, 8, 10])
    result = ignore_anchors(targets_of([[K] * 5]), ANCHORS, [halves], 0.5)
    assert result.labels[0, 0] == K


def test_each_image_has_its_own_boxes():
    targets = targets_of([[K] * 5] * 4)
    per_image = [None, boxes([80.0, 80, 90, 90]), boxes(), boxes([0.0, 0, 10, 10])]
    labels = ignore_anchors(targets, ANCHORS, per_image, 0.6).labels
    assert labels.tolist() == [[K] * 5, [K, K, K, -1, K], [K] * 5, [-1, K, K, K, K]]


def test_the_rest_of_the_targets_is_kept():
    extra = torch.tensor([[0, 1, 2]])
    labels, matched = torch.tensor([[K, 1, K, K, K]]), torch.tensor([[-1, 0, -1, -1, -1]])
    targets = DenseTargets(labels, torch.zeros(1, 5, 4), K, extra, matched, labels)
    result = ignore_anchors(targets, ANCHORS, [boxes([0.0, 0, 10, 10])], 0.5)
    assert result.extra is extra and result.labels[0, 0] == -1
    assert result.matched_idxs is matched and result.weights is labels


@pytest.mark.parametrize("nothing", [[None, None], [None, boxes()]])
def test_nothing_to_ignore_costs_nothing(nothing: list):
    targets = targets_of([[K] * 5] * 2)
    assert ignore_anchors(targets, ANCHORS, nothing, 0.5) is targets
    everything = [boxes([0.0, 0, 100, 100])] * 2
    assert ignore_anchors(targets, ANCHORS, everything, 2.0) is targets


@pytest.mark.parametrize("pairs_at_once", [1, 2000, 2**20])
def test_equals_a_float64_reference(pairs_at_once: int, monkeypatch):
    monkeypatch.setattr("retinanet_ext.boxes.PAIRS_AT_ONCE", pairs_at_once)
    corner, size = torch.rand(900, 2) * 80, torch.rand(900, 2) * 30 + 1
    rows = torch.cat([corner, corner + size], dim=1)
    anchors, ignored = rows[:880], rows[880:]
    labels = torch.randint(-1, K + 1, (1, 880))
    result = ignore_anchors(targets_of(labels.tolist()), [Boxes(anchors)], [Boxes(ignored)], 0.4)
    a, b = anchors.double()[:, None], ignored.double()[None]
    overlap = torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])
    share = overlap.clamp(min=0).prod(-1) / (a[..., 2:] - a[..., :2]).prod(-1)
    inside = (share >= 0.4).any(dim=1)
    expected = torch.where(inside & (labels == K), -1, labels)
    assert torch.equal(result.labels, expected)
    assert 50 < (expected != labels).sum() < 200


def test_wrong_numbers_are_refused_by_name():
    with pytest.raises(ValueError, match="1 entries for 2 images"):
        ignore_anchors(targets_of([[K] * 5] * 2), ANCHORS, [None], 0.5)
    cfg = get_cfg()
    cfg.MODEL.META_ARCHITECTURE = "RetinaNetExt"
    cfg.MODEL.RETINANET.IGNORE_IOF_THRESH = 0.0
    with pytest.raises(ValueError, match=r"IGNORE_IOF_THRESH must be positive, got 0\.0"):
        validate_cfg(cfg)
