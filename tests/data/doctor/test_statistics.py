"""Class counts, sizes at the training resolution, and objects that no anchor covers."""

from __future__ import annotations

import numpy as np
import pytest
from detectron2.structures import BoxMode

from retinanet_ext.boxes import AnchorLevel
from retinanet_ext.data.doctor import (
    InputSize,
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


@pytest.mark.parametrize("empty", [0, 1])
def test_a_class_without_objects_is_not_compared_with_others(empty):
    boxes = {"bbox": [0, 0, 9, 9], "bbox_mode": BoxMode.XYXY_ABS}
    annotations = [{**boxes, "category_id": 1 - empty} for _ in range(200)]
    record = {"file_name": "/a.png", "width": 96, "height": 64, "annotations": annotations}
    faults = check_classes(from_dataset_dicts([record], ["cat", "dog"], "pets"))
    assert [fault.code for fault in faults] == ["empty_class"]


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
