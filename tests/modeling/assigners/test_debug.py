"""What debug_targets tells about an assignment, on boxes small enough to count by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from detectron2.structures import Boxes, Instances, pairwise_iou

from retinanet_ext.modeling import ATSSAssigner, IoUAssigner, describe_assignment
from retinanet_ext.structures import DenseTargets

K = 3
ANCHORS = [
    Boxes(torch.tensor([[0.0, 0, 10, 10], [4.0, 0, 14, 10]])),
    Boxes(torch.tensor([[6.0, 0, 16, 10], [1.0, 0, 11, 10], [80.0, 80, 90, 90]])),
]


def instances(boxes: list[list[float]], classes: list[int]) -> Instances:
    gt = Instances((100, 100))
    gt.gt_boxes = Boxes(torch.tensor(boxes).reshape(-1, 4))
    gt.gt_classes = torch.tensor(classes, dtype=torch.int64)
    return gt


def test_iou_assigner_counts_positives_per_level_and_finds_low_quality_matches():
    boxes = [[0.0, 0, 10, 10], [82, 82, 87, 87], [200, 200, 240, 240]]
    gt = instances(boxes, [2, 0, 1])
    seen = IoUAssigner(num_classes=K).debug_targets(ANCHORS, [gt])[0]
    # IoU with the first box: 1, 60/140, 40/160, 90/110; the second has only 25/100.
    assert seen.num_positives.tolist() == [[1, 1], [0, 1], [0, 0]]
    assert seen.best_iou.tolist() == pytest.approx([1, 0.25, 0])
    assert seen.only_low_quality.tolist() == [False, True, False]
    assert seen.is_covered.tolist() == [True, True, False]
    assert seen.pos_gt.tolist() == [0, 0, 1]
    assert seen.pos_levels.tolist() == [0, 1, 1]
    assert seen.pos_anchors.tolist() == [[0, 0, 10, 10], [1, 0, 11, 10], [80, 80, 90, 90]]
    assert seen.pos_iou.tolist() == pytest.approx([1, 90 / 110, 0.25])
    assert seen.iou_thresholds is None


def test_low_quality_follows_the_bands():
    gt = instances([[0.0, 0, 10, 10]], [0])
    strict = IoUAssigner(num_classes=K, iou_thresholds=(0.9,), iou_labels=(0, 1))
    assert strict.debug_targets(ANCHORS[1:], [gt])[0].only_low_quality.tolist() == [True]
    assert strict.debug_targets(ANCHORS, [gt])[0].only_low_quality.tolist() == [False]


def test_atss_tells_its_thresholds():
    gt = instances([[0.0, 0, 10, 10]], [1])
    seen = ATSSAssigner(num_classes=K).debug_targets(ANCHORS, [gt, instances([], [])])
    ious = torch.tensor([1, 60 / 140, 40 / 160, 90 / 110, 0], dtype=torch.float64)
    torch.testing.assert_close(seen[0].iou_thresholds[0], ious.mean() + ious.std())
    assert seen[0].num_positives.tolist() == [[1, 0]]
    assert seen[0].only_low_quality is None
    assert seen[1].iou_thresholds.tolist() == []


@pytest.mark.parametrize("kind", [IoUAssigner, ATSSAssigner])
def test_an_image_without_objects_has_nothing_to_show(kind: type):
    seen = kind(num_classes=K).debug_targets(ANCHORS, [instances([], [])])[0]
    assert seen.num_positives.shape == (0, 2) and seen.best_iou.shape == (0,)
    assert seen.pos_anchors.shape == (0, 4) and seen.is_covered.tolist() == []


@pytest.mark.parametrize("kind", [IoUAssigner, ATSSAssigner])
@pytest.mark.parametrize("pairs_at_once", [1, 2**20])
def test_positives_belong_to_the_box_they_predict(kind: type, pairs_at_once: int, monkeypatch):
    monkeypatch.setattr("retinanet_ext.boxes.PAIRS_AT_ONCE", pairs_at_once)
    corner, size = torch.rand(300, 2) * 80, torch.rand(300, 2) * 30 + 4
    boxes = torch.cat([corner, corner + size], dim=1)
    anchors = [Boxes(boxes[:200]), Boxes(boxes[200:280])]
    gt = instances(boxes[280:].tolist(), [i % K for i in range(20)])
    assigner = kind(num_classes=K)
    targets, seen = assigner(anchors, [gt]), assigner.debug_targets(anchors, [gt])[0]
    positive = targets.pos_mask[0]
    assert len(seen.pos_gt) == positive.sum() == seen.num_positives.sum() > 10
    assert targets.matched_idxs[0, ~positive].eq(-1).all()
    # Who does not say which box it is gets it found again.
    found = describe_assignment(replace(targets, matched_idxs=None), anchors, [gt])[0]
    assert torch.equal(found.pos_gt, seen.pos_gt)
    assert torch.equal(gt.gt_boxes.tensor[seen.pos_gt], targets.boxes[0, positive])
    assert torch.equal(gt.gt_classes[seen.pos_gt], targets.labels[0, positive])
    iou = pairwise_iou(gt.gt_boxes, Boxes.cat(anchors))
    torch.testing.assert_close(seen.best_iou, iou.amax(dim=1))
    torch.testing.assert_close(seen.pos_iou, iou[:, positive].gather(0, seen.pos_gt[None])[0])


@pytest.mark.parametrize("pairs_at_once", [1, 2**20])
def test_equal_objects_count_as_the_first_and_classes_tell_apart(pairs_at_once: int, monkeypatch):
    monkeypatch.setattr("retinanet_ext.boxes.PAIRS_AT_ONCE", pairs_at_once)
    gt = instances([[0.0, 0, 10, 10]] * 3, [1, 2, 2])
    labels = torch.tensor([[2, K, 1, 2, -1]])
    boxes = torch.tensor([0.0, 0, 10, 10]).expand(1, 5, 4)
    seen = describe_assignment(DenseTargets(labels, boxes, K), ANCHORS, [gt])[0]
    assert seen.pos_gt.tolist() == [1, 0, 1]
    assert seen.num_positives.tolist() == [[0, 1], [1, 1], [0, 0]]


def test_a_positive_of_no_known_box_is_shown_as_such():
    gt = instances([[0.0, 0, 10, 10]], [1])
    labels = torch.tensor([[1, K, 1, K, K]])
    boxes = torch.tensor([0.0, 0, 10, 10]).repeat(1, 5, 1)
    boxes[0, 2] += 1
    seen = describe_assignment(DenseTargets(labels, boxes, K), ANCHORS, [gt])[0]
    assert seen.pos_gt.tolist() == [0, -1] and seen.pos_iou.tolist() == [1, 0]
    assert seen.num_positives.tolist() == [[1, 0]]


def test_targets_of_something_else_are_refused():
    targets = IoUAssigner(num_classes=K)(ANCHORS[:1], [instances([], [])])
    with pytest.raises(ValueError, match="5 anchors; pass what the assigner got"):
        describe_assignment(targets, ANCHORS, [instances([], [])])
