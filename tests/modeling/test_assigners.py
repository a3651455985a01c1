"""Labels of anchors, on boxes small enough to compute by hand."""

from __future__ import annotations

import pytest
import torch
from detectron2.structures import Boxes, Instances

from retinanet_ext.modeling import IoUAssigner

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
