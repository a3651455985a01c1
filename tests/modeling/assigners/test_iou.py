"""Labels of anchors, on boxes small enough to compute by hand."""

from __future__ import annotations

import pytest
import torch
from detectron2.modeling.matcher import Matcher
from detectron2.structures import Boxes, Instances, pairwise_iou

from retinanet_ext.modeling import IoUAssigner, RetinaNetAnchorGenerator

K = 3
# Four anchors of 10 x 10 in a row, and one far away.
ANCHORS = [
    Boxes(torch.tensor([[0.0, 0, 10, 10], [4.0, 0, 14, 10]])),
    Boxes(torch.tensor([[6.0, 0, 16, 10], [9.0, 0, 19, 10], [80.0, 80, 90, 90]])),
]


def instances(boxes: list[list[float]], classes: list[int]) -> Instances:
    gt = Instances((100, 100))
    gt.gt_boxes = Boxes(torch.tensor(boxes).reshape(-1, 4))
    gt.gt_classes = torch.tensor(classes, dtype=torch.int64)
    return gt


def assign(*gts: Instances, **arguments):
    return IoUAssigner(num_classes=K, **arguments)(ANCHORS, list(gts))


def test_bands_make_object_ignored_and_background():
    # IoU with [0, 0, 10, 10]: 1, 60/140 = 0.43, 40/160 = 0.25, 10/190, 0.
    targets = assign(instances([[0, 0, 10, 10]], [2]))
    assert targets.labels.tolist() == [[2, -1, K, K, K]]
    assert targets.boxes[0, 0].tolist() == [0, 0, 10, 10]
    assert targets.pos_mask.tolist() == [[True, False, False, False, False]]


def test_low_quality_match_can_be_switched_off():
    # IoU 0.25 at best (a 5 x 5 box inside of the first anchor).
    gt = instances([[0, 0, 5, 5]], [1])
    assert assign(gt).labels.tolist() == [[1, K, K, K, K]]
    assert assign(gt, allow_low_quality_matches=False).labels.tolist() == [[K] * 5]


def test_each_anchor_takes_its_best_box():
    targets = assign(instances([[0, 0, 10, 10], [9, 0, 19, 10]], [0, 1]))
    assert targets.labels[0, 0] == 0 and targets.labels[0, 3] == 1
    assert targets.boxes[0, 3].tolist() == [9, 0, 19, 10]


def test_targets_say_which_box_each_positive_got():
    gts = instances([[80, 80, 90, 90], [0, 0, 10, 10]], [1, 1]), instances([], [])
    targets = assign(*gts)
    assert targets.labels[0].tolist() == [1, -1, K, K, 1]
    assert targets.matched_idxs.tolist() == [[1, -1, -1, -1, 0], [-1] * 5]
    assert targets.matched_idxs.dtype == torch.int64 and targets.weights is None


def test_image_without_objects_is_all_background():
    targets = assign(instances([], []), instances([[0, 0, 10, 10]], [0]))
    assert targets.labels[0].tolist() == [K] * 5
    assert targets.labels[1, 0] == 0
    assert targets.labels.dtype == torch.int64


@pytest.mark.parametrize(
    "box", [[200.0, 200, 240, 240], [3.0, 3, 3, 9]], ids=["outside", "without area"]
)
def test_box_that_no_anchor_overlaps_makes_no_anchor_positive(box: list[float]):
    assert assign(instances([box], [0])).labels.tolist() == [[K] * 5]
    mixed = assign(instances([box, [80, 80, 90, 90]], [0, 1]))
    assert mixed.labels.tolist() == [[K, K, K, K, 1]]
    assert mixed.boxes[0, 4].tolist() == [80, 80, 90, 90]


def test_one_pixel_box_gets_its_best_anchor():
    assert assign(instances([[85, 85, 86, 86]], [2])).labels.tolist() == [[K, K, K, K, 2]]


def test_paper_anchors_are_labelled_as_by_detectron2():
    generator = RetinaNetAnchorGenerator(
        octave_base_sizes=[32.0, 64.0],
        scales_per_octave=3,
        aspect_ratios=[[0.5, 1.0, 2.0]],
        strides=[8, 16],
    )
    anchors = generator([torch.zeros(1, 1, 12, 16), torch.zeros(1, 1, 6, 8)])
    corner, size = torch.rand(15, 2) * 60, torch.rand(15, 2) * 60 + 9
    boxes = torch.cat([corner, corner + size], dim=1)
    boxes[:5] = (boxes[:5] / 8).round() * 8  # many anchors tie for these
    gt = instances(boxes.tolist(), torch.randint(0, K, (15,)).tolist())
    matcher = Matcher([0.4, 0.5], [0, -1, 1], allow_low_quality_matches=True)
    matched, kind = matcher(pairwise_iou(gt.gt_boxes, Boxes.cat(anchors)))
    expected = gt.gt_classes[matched]
    expected[kind == 0], expected[kind == -1] = K, -1
    targets = IoUAssigner(num_classes=K)(anchors, [gt, gt])
    assert torch.equal(targets.labels, torch.stack([expected, expected]))
    positive = targets.pos_mask[0]
    assert 15 <= positive.sum() < 500
    assert torch.equal(targets.boxes[1][positive], gt.gt_boxes.tensor[matched[positive]])


@pytest.mark.parametrize("labels", [(-1, 0, 1), (1, 0, -1)])
def test_without_a_box_to_learn_all_is_background_in_any_bands(labels: tuple[int, ...]):
    nothing, outside = instances([], []), instances([[200, 200, 240, 240]], [0])
    targets = assign(nothing, outside, iou_labels=labels)
    assert targets.labels.tolist() == [[K] * 5] * 2


def test_labels_are_int64_for_classes_of_any_integer():
    gt = instances([[0, 0, 10, 10]], [2])
    gt.gt_classes = gt.gt_classes.to(torch.int32)
    targets = assign(gt)
    assert targets.labels.dtype == torch.int64
    assert targets.labels[0].tolist() == [2, -1, K, K, K]


def test_nothing_is_read_back_from_the_device():
    # Tensors of the meta device have no values that could be.
    gt = instances([[0, 0, 10, 10], [5, 5, 9, 9]], [0, 1]).to("meta")
    empty = instances([], []).to("meta")
    targets = IoUAssigner(num_classes=K)([x.to("meta") for x in ANCHORS], [gt, empty])
    assert targets.labels.shape == (2, 5) and targets.boxes.shape == (2, 5, 4)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"iou_thresholds": [0.5, 0.4]}, "IOU_THRESHOLDS must rise"),
        ({"iou_thresholds": [0.0, 0.5]}, "IOU_THRESHOLDS must rise"),
        ({"iou_labels": [0, 1]}, "IOU_LABELS must hold 3 values"),
        ({"iou_labels": [0, -1, 2]}, "IOU_LABELS must hold 3 values"),
    ],
)
def test_bands_that_do_not_fit_are_refused_by_name(arguments: dict, words: str):
    with pytest.raises(ValueError, match=words):
        IoUAssigner(num_classes=K, **arguments)
