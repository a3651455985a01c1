"""Class counts, sizes at the training resolution, and anchors against all pairs of IoU."""

from __future__ import annotations

import numpy as np
import pytest
from detectron2.structures import BoxMode

from retinanet_ext.data.doctor import (
    AnchorLevel,
    InputSize,
    best_anchor_iou,
    examine,
    from_coco_json,
    from_dataset_dicts,
)
from retinanet_ext.data.doctor.statistics import check_anchors, check_classes, describe_sizes
from tests.helpers.broken import good_content, write

# Scale 1 for the images of 96 x 64 here.
INPUT = InputSize(64, 1000)


def square(side, stride=8, offset=0.5):
    return AnchorLevel(stride, np.array([[-side / 2, -side / 2, side / 2, side / 2]]), offset)


def table_of(*boxes, classes=("cat", "dog"), category=0):
    annotations = [
        {"bbox": list(x), "bbox_mode": BoxMode.XYXY_ABS, "category_id": category} for x in boxes
    ]
    record = {"file_name": "/a.png", "width": 96, "height": 64, "annotations": annotations}
    return from_dataset_dicts([record], classes, "pets")


def all_pairs(boxes, size, levels):
    """Independent: every anchor at every location, one by one."""
    best = []
    for box in boxes:
        ious = [0.0]
        for level in levels:
            for row in range(int(np.ceil(size[1] / level.stride))):
                for column in range(int(np.ceil(size[0] / level.stride))):
                    for cell in level.cells:
                        x = (column + level.offset) * level.stride
                        y = (row + level.offset) * level.stride
                        a = np.add(cell, [x, y, x, y])
                        w = min(a[2], box[2]) - max(a[0], box[0])
                        h = min(a[3], box[3]) - max(a[1], box[1])
                        inside = max(w, 0) * max(h, 0)
                        area = (a[2] - a[0]) * (a[3] - a[1])
                        own = (box[2] - box[0]) * (box[3] - box[1])
                        ious.append(inside / (area + own - inside))
        best.append(max(ious))
    return best


@pytest.mark.parametrize("offset", [0.0, 0.5])
def test_best_iou_is_that_of_all_pairs(offset):
    rng = np.random.default_rng(0)
    first = rng.uniform(-5, 60, (25, 2))
    boxes = np.concatenate([first, first + rng.uniform(2, 50, (25, 2))], axis=1)
    cells = np.array([[-8, -8, 8, 8], [-16, -5, 16, 5], [-2, -9, 7, 3]], dtype=float)
    levels = [AnchorLevel(8, cells, offset), AnchorLevel(16, 2 * cells, offset)]
    sizes = np.tile([70.0, 64.0], (25, 1))
    found = best_anchor_iou(boxes, sizes, levels)
    np.testing.assert_allclose(found, all_pairs(boxes, (70, 64), levels), rtol=0, atol=1e-12)
    assert found.max() > 0.5


def test_chunks_do_not_change_the_result(monkeypatch):
    boxes = np.array([[i, i, i + 10.0, i + 12.0] for i in range(10)])
    sizes = np.full((10, 2), 64.0)
    whole = best_anchor_iou(boxes, sizes, [square(16)])
    monkeypatch.setattr("retinanet_ext.data.doctor.statistics.CHUNK", 3)
    assert (best_anchor_iou(boxes, sizes, [square(16)]) == whole).all()


def test_uncovered_objects_are_counted_by_class_and_named():
    table = table_of([12, 12, 28, 28], [0, 0, 3, 3])
    numbers, faults = check_anchors(table, INPUT, [square(16)])
    assert numbers["uncovered"] == 1 and numbers["objects"] == 2
    assert numbers["uncovered_by_class"] == {"cat": 1, "dog": 0}
    assert faults[0].code == "uncovered_objects" and "1 of 2" in faults[0].message(0)


def test_anchors_see_the_resized_image():
    # 16 x 16 becomes 8 x 8 at half the size, of which an anchor of 16 covers a quarter.
    table = table_of([12, 12, 28, 28])
    assert check_anchors(table, INPUT, [square(16)])[0]["uncovered"] == 0
    assert check_anchors(table, InputSize(32, 1000), [square(16)])[0]["uncovered"] == 1
    assert check_anchors(table, InputSize(64, 48), [square(16)])[0]["uncovered"] == 1


def test_few_uncovered_objects_are_no_finding():
    table = table_of(*[[12, 12, 28, 28]] * 20, [0, 0, 3, 3])
    numbers, faults = check_anchors(table, INPUT, [square(16)])
    assert numbers["uncovered"] == 1 and faults == []


def test_sizes_are_those_of_the_training_resolution():
    table = table_of([0, 0, 20, 20], [0, 0, 60, 60], [0, 0, 90, 64])
    sizes = describe_sizes(table, InputSize(128, 1000))  # twice as large
    assert sizes["percentiles"]["50"] == 120.0
    assert (sizes["small"], sizes["medium"], sizes["large"]) == (0, 1, 2)


def test_empty_class_is_named():
    (fault,) = check_classes(table_of([0, 0, 9, 9]))
    assert fault.code == "empty_class" and "'dog'" in fault.message(0)


def test_imbalance_names_both_classes():
    boxes = {"bbox": [0, 0, 9, 9], "bbox_mode": BoxMode.XYXY_ABS}
    annotations = [{**boxes, "category_id": int(i == 0)} for i in range(101)]
    record = {"file_name": "/a.png", "width": 96, "height": 64, "annotations": annotations}
    (fault,) = check_classes(from_dataset_dicts([record], ["cat", "dog"], "pets"))
    assert fault.code == "imbalance"
    assert "'cat' has 100" in fault.message(0) and "'dog' 1" in fault.message(0)
    record["annotations"] = annotations[:-1]
    assert check_classes(from_dataset_dicts([record], ["cat", "dog"], "pets")) == []


def test_no_objects_is_an_error():
    (fault,) = check_classes(table_of())
    assert fault.code == "no_objects"


def test_report_counts_all_but_lists_a_limited_number(tmp_path, monkeypatch):
    monkeypatch.setattr("retinanet_ext.data.doctor.checks.MAX_LISTED", 3)
    content = good_content()
    for annotation in content["annotations"]:
        annotation["bbox"] = [5, 5, 0, 5]
    report = examine([from_coco_json(*write(tmp_path, content), "train")], INPUT)
    assert report.counts["train", "box_no_area"] == 8
    assert sum(x.code == "box_no_area" for x in report.findings) == 3
    assert report.exit_code == 2 and report.datasets["train"]["objects"] == 0
