"""Kinds of NMS in the decoder: per class, over all classes, soft."""

from __future__ import annotations

import math

import pytest
import torch
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.structures import Boxes

from retinanet_ext.modeling import DenseDecoder
from retinanet_ext.structures import HeadOutputs

K = 3


def decoder(**changes) -> DenseDecoder:
    arguments = {"box2box_transform": Box2BoxTransform((1.0, 1, 1, 1)), "num_classes": K, **changes}
    return DenseDecoder(**arguments)


def three_equal_boxes(**changes):
    """Detections of three equal boxes with logits 2 (class 0), 3 (class 0) and 1 (class 1)."""
    anchors = Boxes(torch.tensor([[0.0, 0, 10, 10]] * 3))
    logits = torch.full((1, 3 * K, 1, 1), -9.0)
    logits[0, [0 * K + 0, 1 * K + 0, 2 * K + 1]] = torch.tensor([2.0, 3.0, 1.0])[:, None, None]
    outputs = HeadOutputs([logits], [torch.zeros(1, 12, 1, 1)])
    return decoder(**changes)([anchors], outputs, [(20, 20)])[0]


def test_class_agnostic_nms_drops_the_other_class_too():
    result = three_equal_boxes(nms_kind="class_agnostic")
    assert result.pred_classes.tolist() == [0]
    assert result.scores[0].item() == pytest.approx(1 / (1 + math.exp(-3.0)))
    all_kept = three_equal_boxes(nms_kind="class_agnostic", nms_thresh=1.0)
    assert all_kept.pred_classes.tolist() == [0, 0, 1]


def test_soft_nms_lowers_the_score_within_a_class():
    expected = [1 / (1 + math.exp(-x)) for x in (3.0, 1.0, 2.0)]
    expected[2] *= math.exp(-1 / 0.6)
    changes = {"nms_kind": "soft", "soft_nms_sigma": 0.6}
    result = three_equal_boxes(**changes)
    assert result.pred_classes.tolist() == [0, 1, 0]
    assert result.scores.tolist() == pytest.approx(expected)
    # The lowered score is 0.166.
    assert len(three_equal_boxes(score_thresh=0.16, **changes)) == 3
    assert len(three_equal_boxes(score_thresh=0.17, **changes)) == 2
    assert len(three_equal_boxes(max_detections=1, **changes)) == 1


def test_linear_soft_nms_starts_at_the_nms_threshold():
    # Boxes half of which overlap, an IoU of 1/3.
    anchors = Boxes(torch.tensor([[0.0, 0, 10, 10], [5.0, 0, 15, 10]]))
    logits = torch.full((1, 2 * K, 1, 1), -9.0)
    logits[0, 0], logits[0, K] = 3.0, 2.0
    for nms_thresh, factor in ((0.3, 2 / 3), (0.5, 1.0)):
        decode = decoder(nms_kind="soft", soft_nms_method="linear", nms_thresh=nms_thresh)
        outputs = HeadOutputs([logits], [torch.zeros(1, 8, 1, 1)])
        result = decode([anchors], outputs, [(20, 20)])[0]
        assert result.scores[1].item() == pytest.approx(factor / (1 + math.exp(-2.0)))


@pytest.mark.parametrize("nms_kind", ["class_agnostic", "soft"])
def test_kinds_of_nms_take_images_one_by_one(nms_kind: str):
    generator = torch.Generator().manual_seed(0)
    corner = torch.rand(6 * 8, 2, generator=generator) * 80
    anchors = [Boxes(torch.cat([corner, corner + 20], dim=1))]
    logits = torch.randn(2, K, 6, 8, generator=generator) * 2 - 2
    deltas = torch.randn(2, 4, 6, 8, generator=generator) * 0.3
    sizes = [(96, 128), (90, 100)]
    decode = decoder(nms_kind=nms_kind)
    for i, got in enumerate(decode(anchors, HeadOutputs([logits], [deltas]), sizes)):
        of_image = HeadOutputs([logits[i : i + 1]], [deltas[i : i + 1]])
        alone = decode(anchors, of_image, sizes[i : i + 1])[0]
        assert len(alone) > 5 and got.image_size == alone.image_size
        torch.testing.assert_close(got.scores, alone.scores)
        torch.testing.assert_close(got.pred_boxes.tensor, alone.pred_boxes.tensor)
        assert got.scores.tolist() == sorted(got.scores.tolist(), reverse=True)
