"""Classes of coinciding boxes, against a slow search."""

from __future__ import annotations

import pytest
import torch
from detectron2.structures import Boxes, Instances, pairwise_iou

from retinanet_ext import get_cfg, validate_cfg
from retinanet_ext.modeling import ATSSAssigner, IoUAssigner
from retinanet_ext.modeling.assigners.multi_label import extra_classes
from retinanet_ext.registry import ASSIGNER_REGISTRY

K = 5
ANCHORS = [Boxes(torch.tensor([[0.0, 0, 10, 10], [40.0, 40, 50, 50], [80.0, 80, 90, 90]]))]


def instances(boxes: torch.Tensor | list, classes: torch.Tensor | list) -> Instances:
    gt = Instances((100, 100))
    gt.gt_boxes = Boxes(torch.as_tensor(boxes, dtype=torch.float32).reshape(-1, 4))
    gt.gt_classes = torch.as_tensor(classes, dtype=torch.int64)
    return gt


def coinciding() -> Instances:
    boxes = [[0.0, 0, 10, 10], [0.0, 0, 10, 9], [0.0, 0, 10, 10], [40.0, 40, 50, 50], [0, 0, 9, 9]]
    return instances(boxes, [1, 3, 1, 2, 4])


@pytest.mark.parametrize("kind", [IoUAssigner, ATSSAssigner])
def test_an_anchor_gets_the_classes_of_boxes_above_the_threshold(kind: type):
    empty, gt = instances([], []), coinciding()
    targets = kind(num_classes=K, multi_label_iou_thresh=0.85)(ANCHORS, [empty, gt])
    assert targets.labels[1].tolist() == [1, 2, K]
    # IoU 0.9 with class 3, 0.81 with class 4, 1 with another object of the same class 1.
    assert targets.extra.tolist() == [[1, 0, 3]]
    assert targets.extra.dtype == torch.int64
    more = kind(num_classes=K, multi_label_iou_thresh=0.8)(ANCHORS, [gt, gt])
    assert more.extra.tolist() == [[0, 0, 3], [0, 0, 4], [1, 0, 3], [1, 0, 4]]


@pytest.mark.parametrize("kind", [IoUAssigner, ATSSAssigner])
def test_off_by_default_and_empty_without_coinciding_boxes(kind: type):
    assert kind(num_classes=K)(ANCHORS, [coinciding()]).extra is None
    assigner = kind(num_classes=K, multi_label_iou_thresh=0.99)
    for gt in (instances([], []), instances([[0, 0, 10, 10]], [1])):
        assert assigner(ANCHORS, [gt]).extra.shape == (0, 3)


def test_labels_and_boxes_stay_as_they_are():
    off = IoUAssigner(num_classes=K)(ANCHORS, [coinciding()])
    on = IoUAssigner(num_classes=K, multi_label_iou_thresh=0.5)(ANCHORS, [coinciding()])
    assert torch.equal(off.labels, on.labels) and torch.equal(off.boxes, on.boxes)


def test_equals_a_slow_search():
    boxes = (torch.rand(40, 4) * 3).round() + torch.tensor([0.0, 0, 10, 10])  # many overlap
    gt = instances(boxes, torch.randint(0, K, (40,)))
    matched, positive = torch.randint(0, 40, (200,)), torch.rand(200) < 0.5
    iou = pairwise_iou(gt.gt_boxes, gt.gt_boxes)
    for thresh in (0.5, 0.7, 0.9):
        expected = set()
        for anchor in positive.nonzero().squeeze(1).tolist():
            box = int(matched[anchor])
            for other in range(40):
                if iou[box, other] > thresh and gt.gt_classes[other] != gt.gt_classes[box]:
                    expected.add((anchor, int(gt.gt_classes[other])))
        rows = extra_classes(matched, positive, gt, thresh).tolist()
        assert rows == [list(row) for row in sorted(expected)]
        assert len(rows) > 20


def test_threshold_out_of_range_is_refused_by_name():
    cfg = get_cfg()
    cfg.MODEL.META_ARCHITECTURE = "RetinaNetExt"
    for name in ("IoUAssigner", "ATSSAssigner"):
        cfg.MODEL.RETINANET.MULTI_LABEL_IOU_THRESH = 0.75
        assert ASSIGNER_REGISTRY.get(name)(cfg).multi_label_iou_thresh == 0.75
        for wrong in (0.0, 1.5):
            cfg.MODEL.RETINANET.MULTI_LABEL_IOU_THRESH = wrong
            with pytest.raises(ValueError, match=f"MULTI_LABEL_IOU_THRESH is {wrong}"):
                ASSIGNER_REGISTRY.get(name)(cfg)
            with pytest.raises(ValueError, match=f"MULTI_LABEL_IOU_THRESH is {wrong}"):
                validate_cfg(cfg)
