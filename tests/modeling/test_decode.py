"""Decoding: selection of candidates, order, limits, and values that are not finite."""

from __future__ import annotations

import math

import pytest
import torch
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.structures import Boxes

from retinanet_ext.modeling import DenseDecoder
from retinanet_ext.modeling.decode import gather_deltas, select_candidates

A, K, H, W = 2, 3, 4, 5


def random_level(seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(A * K, H, W, generator=generator) * 2 - 2
    deltas = torch.randn(A * 4, H, W, generator=generator) * 0.1
    corner = torch.rand(H * W * A, 2, generator=generator) * 50
    anchors = torch.cat([corner, corner + 10], dim=1)
    return logits, deltas, Boxes(anchors)


def decoder(**changes) -> DenseDecoder:
    arguments = {"box2box_transform": Box2BoxTransform((1.0, 1, 1, 1)), "num_classes": K, **changes}
    return DenseDecoder(**arguments)


def dense_scores(logits: torch.Tensor) -> torch.Tensor:
    """(A*K, H, W) to scores (H*W*A, K), the long way."""
    return logits.view(A, K, H, W).permute(2, 3, 0, 1).reshape(-1, K).sigmoid()


@pytest.mark.parametrize("thresh", [0.0, 0.05, 0.5, 0.999])
@pytest.mark.parametrize("topk", [1, 7, 1000])
def test_candidates_are_the_best_scores_above_the_threshold(thresh: float, topk: int):
    logits, _, _ = random_level()
    scores = dense_scores(logits)
    expected = scores[scores > thresh].sort(descending=True).values[:topk]
    found = select_candidates(logits, K, thresh, topk)
    torch.testing.assert_close(found.scores, expected)
    torch.testing.assert_close(scores[found.anchor_indices, found.classes], found.scores)


def test_deltas_are_gathered_from_the_right_anchor():
    _, deltas, _ = random_level()
    dense = deltas.view(A, 4, H, W).permute(2, 3, 0, 1).reshape(-1, 4)
    indices = torch.tensor([0, 1, 17, H * W * A - 1, 17])
    assert torch.equal(gather_deltas(deltas, indices), dense[indices])


def test_detections_are_sorted_limited_and_decoded():
    logits, deltas, anchors = random_level()
    result = decoder(nms_thresh=1.0, max_detections=5)(
        [anchors], [logits[None]], [deltas[None]], [(60, 60)]
    )[0]
    scores, order = dense_scores(logits).flatten().sort(descending=True)
    torch.testing.assert_close(result.scores, scores[:5])
    assert result.pred_classes.tolist() == (order[:5] % K).tolist()
    rows = order[:5] // K
    boxes = Box2BoxTransform((1.0, 1, 1, 1)).apply_deltas(
        gather_deltas(deltas, rows), anchors.tensor[rows]
    )
    torch.testing.assert_close(result.pred_boxes.tensor, boxes)
    assert result.image_size == (60, 60)


def test_nms_is_per_class():
    # Three equal boxes: two of class 0, one of class 1.
    anchors = Boxes(torch.tensor([[0.0, 0, 10, 10]] * 3))
    logits = torch.full((3 * K, 1, 1), -9.0)
    logits[0 * K + 0], logits[1 * K + 0], logits[2 * K + 1] = 2.0, 3.0, 1.0
    result = decoder()([anchors], [logits[None]], [torch.zeros(1, 12, 1, 1)], [(20, 20)])[0]
    assert result.pred_classes.tolist() == [0, 1]
    assert result.scores[0].item() == pytest.approx(1 / (1 + math.exp(-3.0)))


def test_no_candidate_gives_an_empty_result():
    logits, deltas, anchors = random_level()
    result = decoder()([anchors], [logits[None] - 100], [deltas[None]], [(60, 60)])[0]
    assert len(result) == 0 and result.pred_boxes.tensor.shape == (0, 4)


def test_values_that_are_not_finite_are_left_out():
    logits, deltas, anchors = random_level()
    clean = decoder()([anchors], [logits[None]], [deltas[None]], [(60, 60)])[0]
    logits[0, 0, 0] = math.nan
    deltas[0, 1, :] = math.inf
    result = decoder()([anchors], [logits[None]], [deltas[None]], [(60, 60)])[0]
    assert 0 < len(result) < len(clean)
    assert result.pred_boxes.tensor.isfinite().all() and result.scores.isfinite().all()


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"score_thresh": 1.5}, "SCORE_THRESH_TEST"),
        ({"nms_thresh": -0.1}, "NMS_THRESH_TEST"),
        ({"topk_candidates": 0}, "TOPK_CANDIDATES_TEST"),
        ({"max_detections": 0}, "DETECTIONS_PER_IMAGE"),
    ],
)
def test_nonsense_is_refused_by_name(changes: dict, key: str):
    with pytest.raises(ValueError, match=key):
        decoder(**changes)
