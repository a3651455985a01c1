"""Matches equal Detectron2's, ties included, whatever is in memory at a time."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from detectron2.modeling.matcher import Matcher
from detectron2.structures import Boxes, pairwise_iou
from torch.utils._python_dispatch import TorchDispatchMode

from retinanet_ext.modeling.assigners.matching import ChunkedMatcher, _Overlaps

BANDS = {"thresholds": [0.4, 0.5], "labels": [0, -1, 1]}


def random_boxes(count: int, whole_numbers: bool) -> torch.Tensor:
    """Boxes within 100 x 100 pixels; whole numbers make many equal IoUs, and equal boxes."""
    corner, size = torch.rand(count, 2) * 70, torch.rand(count, 2) * 29 + 1
    boxes = torch.cat([corner, corner + size], dim=1)
    return (boxes / 8).round() * 8 if whole_numbers else boxes


def row_of_anchors(count: int = 6) -> torch.Tensor:
    """Squares of 10 pixels, side by side."""
    left = torch.arange(count) * 10.0
    return torch.stack([left, 0 * left, left + 10, 0 * left + 10], dim=1)


def overlapping(gt: torch.Tensor, anchors: torch.Tensor) -> torch.Tensor:
    return gt[(pairwise_iou(Boxes(gt), Boxes(anchors)) > 0).any(dim=1)]


def assert_equals_detectron2(gt: torch.Tensor, anchors: torch.Tensor, **arguments: Any) -> None:
    theirs = {"allow_low_quality_matches": arguments.get("allow_low_quality_matches", False)}
    theirs.update({name: arguments.get(name, BANDS[name]) for name in BANDS})
    expected = Matcher(**theirs)(pairwise_iou(Boxes(gt), Boxes(anchors)))
    matched, labels = ChunkedMatcher(**{**BANDS, **arguments})(gt, anchors)
    assert torch.equal(matched, expected[0])
    assert torch.equal(labels, expected[1])
    assert matched.dtype == torch.int64 and labels.dtype == torch.int8


@pytest.mark.parametrize("low_quality", [True, False])
@pytest.mark.parametrize("pairs_at_once", [None, 1, 2500, 2**20])
@pytest.mark.parametrize("whole_numbers", [True, False])
def test_equals_detectron2(whole_numbers: bool, pairs_at_once: int | None, low_quality: bool):
    for count in (1, 2, 7, 40):
        anchors = random_boxes(800, whole_numbers)
        gt = overlapping(random_boxes(count, whole_numbers), anchors)
        assert_equals_detectron2(
            gt, anchors, pairs_at_once=pairs_at_once, allow_low_quality_matches=low_quality
        )


@pytest.mark.parametrize("whole_numbers", [True, False])
def test_ious_equal_detectron2_to_the_last_bit(whole_numbers: bool):
    gt, anchors = random_boxes(60, whole_numbers), random_boxes(900, whole_numbers)
    iou = _Overlaps(anchors, len(gt))(gt).clamp(min=0)
    assert torch.equal(iou, pairwise_iou(Boxes(gt), Boxes(anchors)))


def test_the_random_boxes_do_have_ties():
    iou = pairwise_iou(Boxes(random_boxes(40, True)), Boxes(random_boxes(800, True)))
    best = iou.max(dim=0).values
    assert (((iou == best) & (best > 0)).sum(dim=0) > 1).sum() > 20
    assert ((iou == iou.max(dim=1, keepdim=True).values).sum(dim=1) > 1).sum() > 5


@pytest.mark.parametrize(
    "bands",
    [
        {"thresholds": [0.5], "labels": [0, 1]},
        {"thresholds": [0.3, 0.3, 0.7], "labels": [-1, 0, 1, -1]},
        {"thresholds": [0.25], "labels": [1, 0]},
    ],
)
def test_any_bands_equal_detectron2(bands: dict):
    anchors = random_boxes(500, True)
    gt = overlapping(random_boxes(20, True), anchors)
    assert_equals_detectron2(gt, anchors, **bands, allow_low_quality_matches=True)


@pytest.mark.parametrize("pairs_at_once", [1, 2**20])
def test_all_anchors_that_tie_for_a_box_are_positive(pairs_at_once: int):
    # A sliver across the border of anchors 1 and 2 overlaps both alike, and the others not at all.
    matcher = ChunkedMatcher(**BANDS, allow_low_quality_matches=True, pairs_at_once=pairs_at_once)
    matched, labels = matcher(torch.tensor([[18.0, 0, 22, 10]]), row_of_anchors())
    assert labels.tolist() == [0, 1, 1, 0, 0, 0]
    assert matched.tolist() == [0] * 6


@pytest.mark.parametrize("pairs_at_once", [1, 2**20])
def test_first_of_equal_boxes_is_matched(pairs_at_once: int):
    gt = torch.tensor([[40.0, 0, 50, 10], [0, 0, 10, 10], [0, 0, 10, 10], [40, 0, 50, 10]])
    matched, labels = ChunkedMatcher(**BANDS, pairs_at_once=pairs_at_once)(gt, row_of_anchors())
    assert labels.tolist() == [1, 0, 0, 0, 1, 0]
    assert matched[[0, 4]].tolist() == [1, 0]


def test_low_quality_match_keeps_the_box_of_its_own_largest_iou():
    # Box 1 overlaps anchor 0 alone, and less than box 0 does.
    gt = torch.tensor([[0.0, 0, 6, 10], [8, 0, 10, 10]])
    matched, labels = ChunkedMatcher([0.9], [0, 1], True)(gt, row_of_anchors())
    assert labels.tolist() == [1, 0, 0, 0, 0, 0]
    assert matched[0] == 0


@pytest.mark.parametrize("pairs_at_once", [1, 2**20])
@pytest.mark.parametrize("labels", [[0, -1, 1], [1, 0, -1]])
def test_boxes_without_overlap_take_no_part(pairs_at_once: int, labels: list[int]):
    anchors = random_boxes(300, False)
    outside = torch.tensor([[300.0, 300, 400, 400], [20, 20, 20, 60], [60, 60, 50, 50]])
    mixed = torch.cat([outside, overlapping(random_boxes(10, False), anchors), outside])
    matcher = ChunkedMatcher(
        [0.2, 0.5], labels, allow_low_quality_matches=True, pairs_at_once=pairs_at_once
    )
    expected_matched, expected_labels = matcher(mixed[3:-3], anchors)
    matched, found_labels = matcher(mixed, anchors)
    assert torch.equal(matched - 3, expected_matched)
    assert torch.equal(found_labels, expected_labels)
    matched, found_labels = matcher(outside, anchors)
    assert matched.eq(0).all() and found_labels.eq(0).all()


def test_anchors_without_area_match_nothing():
    anchors = torch.tensor([[5.0, 5, 5, 9], [9, 9, 5, 5], [5, 5, 5, 5], [0, 0, 10, 10]])
    gt = torch.tensor([[5.0, 5, 5, 5], [9, 5, 5, 9], [0, 0, 10, 10]])
    matched, labels = ChunkedMatcher(**BANDS, allow_low_quality_matches=True)(gt, anchors)
    assert labels.tolist() == [0, 0, 0, 1]
    assert matched[3] == 2


@pytest.mark.parametrize("pairs_at_once", [1, 2**20])
def test_areas_that_cancel_out_hide_nothing(pairs_at_once: int):
    # Turned inside out, a square has an area of -100 by the formula: 100 - 100 - 0 is no divisor.
    square, inside_out = [0.0, 0, 10, 10], [10.0, 0, 0, 10]
    matcher = ChunkedMatcher(**BANDS, allow_low_quality_matches=True, pairs_at_once=pairs_at_once)
    both = torch.tensor([inside_out, square, [0, 0, 5, 6]])
    matched, labels = matcher(both, torch.tensor([square, inside_out]))
    assert labels.tolist() == [1, 0]
    assert matched.tolist() == [1, 1]


def test_image_without_boxes_is_all_background():
    matched, labels = ChunkedMatcher(**BANDS)(torch.zeros(0, 4), row_of_anchors())
    assert matched.tolist() == labels.tolist() == [0] * 6
    assert matched.dtype == torch.int64 and labels.dtype == torch.int8


class LargestResult(TorchDispatchMode):
    """Remember the number of elements of the largest tensor that any operation returned."""

    def __init__(self) -> None:
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for x in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(x, torch.Tensor):
                self.numel = max(self.numel, x.untyped_storage().nbytes() // x.element_size())
        return result


@pytest.mark.parametrize("pairs_at_once", [None, 5000])
def test_memory_does_not_grow_with_the_number_of_boxes(pairs_at_once: int | None):
    anchors, gt = random_boxes(1000, False), random_boxes(300, False)
    matcher = ChunkedMatcher(**BANDS, allow_low_quality_matches=True, pairs_at_once=pairs_at_once)
    with LargestResult() as largest:
        matcher(gt, anchors)
    # Three rows of scratch for each box at a time, or the anchors themselves.
    assert largest.numel <= max(4 * len(anchors), 3 * (pairs_at_once or 0))


def test_nothing_is_read_back_from_the_device():
    # Tensors of the meta device have no values that could be.
    matcher = ChunkedMatcher(**BANDS, allow_low_quality_matches=True)
    matched, labels = matcher(torch.zeros(5, 4, device="meta"), torch.zeros(9, 4, device="meta"))
    assert matched.shape == labels.shape == (9,)


@pytest.mark.cuda
@pytest.mark.parametrize("count", [20, 1000])
@pytest.mark.parametrize("whole_numbers", [True, False])
def test_on_a_gpu_equals_detectron2_and_the_cpu(gpu, whole_numbers: bool, count: int):
    anchors = random_boxes(4000, whole_numbers)
    gt = overlapping(random_boxes(count, whole_numbers), anchors)
    for low_quality in (True, False):
        assert_equals_detectron2(gt.to(gpu), anchors.to(gpu), allow_low_quality_matches=low_quality)
        matcher = ChunkedMatcher(**BANDS, allow_low_quality_matches=low_quality)
        for got, expected in zip(
            matcher(gt.to(gpu), anchors.to(gpu)), matcher(gt, anchors), strict=True
        ):
            assert torch.equal(got.cpu(), expected)


@pytest.mark.cuda(needs="CUDA, which tells of waiting")
def test_on_a_gpu_nothing_waits(gpu):
    anchors = random_boxes(2000, True).to(gpu)
    gt = random_boxes(30, True).to(gpu)
    matcher = ChunkedMatcher(**BANDS, allow_low_quality_matches=True)
    torch.cuda.set_sync_debug_mode("error")
    try:
        matcher(gt, anchors)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_labels_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="one label more than thresholds"):
        ChunkedMatcher([0.5], [0, -1, 1])
