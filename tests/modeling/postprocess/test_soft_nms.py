"""Soft-NMS against the definition, one box after the other and class by class."""

from __future__ import annotations

import math

import pytest
import torch

from retinanet_ext.modeling.postprocess.nms import top_batched_nms
from retinanet_ext.modeling.postprocess.soft_nms import soft_nms


def crowd(count: int, num_classes: int = 3, num_objects: int = 5, seed: int = 0):
    """Boxes around a few objects, so that many overlap; float64."""
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(num_objects, 2, generator=generator, dtype=torch.float64) * 60
    corner = corner[torch.randint(0, num_objects, (count,), generator=generator)]
    corner = corner + torch.rand(count, 2, generator=generator, dtype=torch.float64) * 12
    size = torch.rand(count, 2, generator=generator, dtype=torch.float64) * 20 + 15
    scores = torch.rand(count, generator=generator, dtype=torch.float64)
    classes = torch.randint(0, num_classes, (count,), generator=generator)
    return torch.cat([corner, corner + size], dim=1), scores, classes


def iou(a: list[float], b: list[float]) -> float:
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    areas = [(x[2] - x[0]) * (x[3] - x[1]) for x in (a, b)]
    return width * height / (sum(areas) - width * height)


def naive(boxes, scores, classes, decay, score_thresh: float, limit: int):
    """Figure 2 of the paper for each class by itself, then the best of all classes."""
    boxes, found = boxes.tolist(), []
    for label in classes.unique().tolist():
        left = {i: scores[i].item() for i in (classes == label).nonzero().flatten().tolist()}
        while left:
            best = max(left, key=lambda i: left[i])
            found.append((left.pop(best), best))
            left = {i: s * decay(iou(boxes[best], boxes[i])) for i, s in left.items()}
    found = sorted((x for x in found if x[0] > score_thresh), reverse=True)[:limit]
    return [index for _, index in found], [score for score, _ in found]


@pytest.mark.parametrize("limit", [1, 10, 1000])
@pytest.mark.parametrize("score_thresh", [0.0, 0.2])
@pytest.mark.parametrize(
    ("arguments", "decay"),
    [
        ({"method": "linear", "iou_thresh": 0.3}, lambda x: 1 - x if x >= 0.3 else 1),
        ({"method": "linear", "iou_thresh": 0.0}, lambda x: 1 - x),
        ({"method": "gaussian", "sigma": 0.5}, lambda x: math.exp(-x * x / 0.5)),
        ({"method": "gaussian", "sigma": 0.1}, lambda x: math.exp(-x * x / 0.1)),
    ],
    ids=["linear 0.3", "linear 0", "gaussian 0.5", "gaussian 0.1"],
)
def test_equals_the_definition(arguments: dict, decay, score_thresh: float, limit: int):
    boxes, scores, classes = crowd(80)
    expected, expected_scores = naive(boxes, scores, classes, decay, score_thresh, limit)
    kept, kept_scores = soft_nms(
        boxes, scores, classes, max_detections=limit, score_thresh=score_thresh, **arguments
    )
    assert kept.tolist() == expected and len(expected) > 0
    torch.testing.assert_close(kept_scores, torch.tensor(expected_scores, dtype=torch.float64))


def test_tiny_sigma_is_plain_nms_at_any_overlap():
    boxes, scores, classes = crowd(100)
    kept, kept_scores = soft_nms(
        boxes, scores, classes, max_detections=100, score_thresh=0.0, sigma=1e-12
    )
    # Aside from rectangles with an IoU below a millionth.
    plain = top_batched_nms(boxes.float(), scores, classes, 1e-6, 100)
    assert torch.equal(kept, plain) and torch.equal(kept_scores, scores[plain])


def test_equal_boxes_by_hand():
    # IoU 1: "linear" leaves nothing of the second, "gaussian" with sigma 0.5 exp(-2) of it; the
    # other class is left alone.
    boxes = torch.tensor([[0.0, 0, 10, 10]]).repeat(3, 1)
    scores, classes = torch.tensor([0.5, 0.8, 0.6]), torch.tensor([1, 1, 0])
    arguments = {"max_detections": 3, "score_thresh": 0.0}
    kept, lowered = soft_nms(boxes, scores, classes, method="linear", **arguments)
    assert kept.tolist() == [1, 2] and lowered.tolist() == pytest.approx([0.8, 0.6])
    kept, lowered = soft_nms(boxes, scores, classes, **arguments)
    assert kept.tolist() == [1, 2, 0]
    assert lowered.tolist() == pytest.approx([0.8, 0.6, 0.5 * math.exp(-2)])


def test_boxes_without_area_and_equal_scores_are_picked_in_order():
    boxes = torch.tensor([[5.0, 5, 5, 5]]).repeat(4, 1)
    scores, zeros = torch.full((4,), 0.5), torch.zeros(4, dtype=torch.int64)
    for method in ("linear", "gaussian"):
        kept, lowered = soft_nms(
            boxes, scores, zeros, max_detections=3, score_thresh=0.1, method=method
        )
        assert kept.tolist() == [0, 1, 2] and lowered.tolist() == [0.5] * 3


def test_inputs_stay_as_they_are_and_half_precision_becomes_float32():
    boxes, scores, classes = crowd(30)
    boxes, scores = boxes.float(), scores.bfloat16()
    before = scores.clone()
    _, lowered = soft_nms(boxes, scores, classes, max_detections=30, score_thresh=0.0)
    assert torch.equal(scores, before) and lowered.dtype == torch.float32
    exact = soft_nms(boxes, scores.float(), classes, max_detections=30, score_thresh=0.0)[1]
    assert torch.equal(lowered, exact)


def test_no_box_gives_none():
    none = torch.zeros(0, dtype=torch.int64)
    kept, scores = soft_nms(
        torch.zeros(0, 4), torch.zeros(0), none, max_detections=9, score_thresh=0.0
    )
    assert kept.shape == scores.shape == (0,) and kept.dtype == torch.int64


@pytest.mark.parametrize(
    ("arguments", "key"),
    [
        ({"method": "cubic"}, "SOFT_NMS_METHOD is 'cubic'"),
        ({"sigma": 0.0}, "SOFT_NMS_SIGMA"),
        ({"sigma": math.nan}, "SOFT_NMS_SIGMA"),
    ],
)
def test_nonsense_is_refused_by_its_key(arguments: dict, key: str):
    boxes, scores, classes = crowd(3)
    with pytest.raises(ValueError, match=key):
        soft_nms(boxes, scores, classes, max_detections=1, score_thresh=0.0, **arguments)
