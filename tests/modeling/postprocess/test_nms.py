"""Stopping early gives the boxes that complete NMS gives."""

from __future__ import annotations

import pytest
import torch
from detectron2.layers import batched_nms
from torchvision.ops import box_iou

from retinanet_ext.modeling.postprocess import nms as module
from retinanet_ext.modeling.postprocess.nms import top_batched_nms


def crowd(count: int, num_classes: int = 5, num_objects: int = 20) -> tuple[torch.Tensor, ...]:
    """Boxes around a few objects, on whole pixels, so that IoUs hit a threshold exactly."""
    corner, size = torch.rand(num_objects, 2) * 200, torch.rand(num_objects, 2) * 30 + 10
    of_object = torch.randint(0, num_objects, (count,))
    corner = corner[of_object] + torch.randn(count, 2) * 3
    size = size[of_object] + torch.rand(count, 2) * 5
    boxes = torch.cat([corner, corner + size], dim=1).round()
    return boxes, torch.rand(count), torch.randint(0, num_classes, (count,))


def greedy(boxes, scores, classes, thresh: float, limit: int) -> list[int]:
    """The definition, one box after the other."""
    suppresses = (box_iou(boxes, boxes) > thresh) & (classes[:, None] == classes)
    kept: list[int] = []
    for index in scores.argsort(descending=True, stable=True).tolist():
        if len(kept) < limit and not suppresses[index, kept].any():
            kept.append(index)
    return kept


@pytest.mark.parametrize("thresh", [0.0, 0.3, 0.5, 1.0])
@pytest.mark.parametrize("count", [0, 1, 400, 1000, 1001, 3000])
def test_equals_detectron2(count: int, thresh: float):
    boxes, scores, classes = crowd(count, num_classes=30)
    expected = batched_nms(boxes, scores, classes, thresh)
    for limit in (1, 20, 100, 10_000):
        kept = top_batched_nms(boxes, scores, classes, thresh, limit)
        assert torch.equal(kept, expected[:limit])


def test_boxes_that_are_rounded_by_the_class_offset_equal_detectron2():
    # Squares and their upper halves: an IoU of 0.5, but for rounding.
    corner = (torch.arange(450)[:, None] * 30 + torch.rand(450, 2)).repeat(2, 1)
    size = torch.tensor([[20.6, 20.6], [20.6, 10.3]]).repeat_interleave(450, dim=0)
    boxes, scores = torch.cat([corner, corner + size], dim=1), torch.rand(900)
    classes = torch.randint(0, 80, (450,)).repeat(2)
    expected = batched_nms(boxes, scores, classes, 0.5)
    assert 500 < len(expected) < 850
    assert torch.equal(top_batched_nms(boxes, scores, classes, 0.5, 900), expected)


@pytest.mark.parametrize("thresh", [0.3, 0.5])
@pytest.mark.parametrize("levels", [1, 7])
@pytest.mark.parametrize("count", [300, 1500])
def test_first_of_equal_scores_wins(count: int, levels: int, thresh: float):
    boxes, scores, classes = crowd(count)
    scores = (scores * levels).ceil() / levels
    for limit in (10, 200):
        kept = top_batched_nms(boxes, scores, classes, thresh, limit)
        assert kept.tolist() == greedy(boxes, scores, classes, thresh, limit)


def test_float64_scores_are_not_rounded():
    boxes = torch.tensor([[0.0, 0, 10, 10]]).repeat(1200, 1)
    scores = torch.full((1200,), 0.5, dtype=torch.float64)
    scores[700] += 1e-12
    zeros = torch.zeros(1200, dtype=torch.int64)
    for count in (800, 1200):
        kept = top_batched_nms(boxes[:count], scores[:count], zeros[:count], 0.5, 100)
        assert kept.tolist() == [700]


def boxes_looked_at(monkeypatch, *arguments) -> list[int]:
    """Sizes of the rounds that NMS took."""
    rounds, nms_per_class = [], module._nms_per_class

    def spy(boxes, *others):
        rounds.append(len(boxes))
        return nms_per_class(boxes, *others)

    monkeypatch.setattr(module, "_nms_per_class", spy)
    top_batched_nms(*arguments)
    return rounds


def test_stops_as_soon_as_enough_are_kept(monkeypatch):
    corner = torch.arange(2000.0)[:, None] * 20
    apart = torch.cat([corner, corner, corner + 10, corner + 10], dim=1)
    arguments = (apart, torch.rand(2000), torch.zeros(2000, dtype=torch.int64), 0.5, 100)
    assert boxes_looked_at(monkeypatch, *arguments) == [400]


def test_looks_at_what_was_dropped_only_once(monkeypatch):
    equal = torch.tensor([[0.0, 0, 10, 10]]).repeat(5000, 1)
    arguments = (equal, torch.rand(5000), torch.zeros(5000, dtype=torch.int64), 0.5, 100)
    assert boxes_looked_at(monkeypatch, *arguments) == [400, 1 + 1200, 1 + 3400]
