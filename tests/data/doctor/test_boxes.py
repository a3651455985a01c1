"""Faults of boxes: each is found at its annotation, named with file and values, and alone."""

from __future__ import annotations

import numpy as np
import pytest
from detectron2.structures import BoxMode

from retinanet_ext.data.doctor import from_dataset_dicts
from retinanet_ext.data.doctor.boxes import usable_boxes
from tests.helpers.broken import (
    HEIGHT,
    WIDTH,
    edited,
    findings_of,
    findings_of_table,
    good_content,
    write,
)


def test_good_boxes_have_no_findings(tmp_path):
    assert findings_of(*write(tmp_path, good_content())) == []


@pytest.mark.parametrize(
    "bbox,code,words",
    [
        ([1, 2, 3], "box_malformed", "four numbers"),
        (None, "box_malformed", "four numbers"),
        (["1", "2", "3", "4"], "box_as_text", "bbox [1, 2, 3, 4] (XYWH) is written as texts"),
        (["1", "two", "3", "4"], "box_malformed", "four numbers"),
        (["1", True, "3", "4"], "box_malformed", "four numbers"),
        ([1, 2, None, 4], "box_malformed", "four numbers"),
        ([1, 2, float("nan"), 4], "box_not_finite", "[1, 2, nan, 4]"),
        ([1, 2, float("inf"), 4], "box_not_finite", "[1, 2, inf, 4]"),
        ([30, 20, -10, 12], "box_inverted", "[30, 20, -10, 12]"),
        ([30, 20, 10, -12], "box_inverted", "x2 < x1 or y2 < y1"),
        ([30, 20, 0, 12], "box_no_area", "[30, 20, 0, 12]"),
        ([30, 20, 10, 0], "box_no_area", "no area"),
        ([0.1, 0.2, 0.3, 0.4], "box_normalised", "0..1 (XYWH)"),
        ([0.3, 0.8, 0.3, 0.4], "box_normalised", "0..1 (CXCYWH)"),
        ([0.4, 0.4, 0.9, 0.9], "box_normalised", "0..1 (XYXY)"),
        ([100, 20, 10, 10], "box_outside", "the image of 96 x 64"),
        ([20, -30, 10, 20], "box_outside", "lies outside"),
        ([90, 20, 10, 10], "box_over_border", "the image of 96 x 64"),
        ([20, -3, 10, 20], "box_over_border", "stands out"),
    ],
)
def test_broken_box_is_named(tmp_path, bbox, code, words):
    json_file, image_root = write(tmp_path, edited(bbox=bbox))
    (finding,) = findings_of(json_file, image_root)
    assert finding.code == code and words in finding.message
    assert finding.annotation_id == 10 and finding.file == str(image_root / "1.png")
    assert finding.severity == (
        "warning" if code in ("box_over_border", "box_as_text") else "error"
    )


def test_a_pixel_over_the_border_is_rounding(tmp_path):
    content = edited(bbox=[-1, 10, 20, 55])
    content["annotations"][1]["bbox"] = [50, 20, 47, 40]
    assert findings_of(*write(tmp_path, content)) == []


def test_corners_in_one_image_are_seen_when_all_its_boxes_agree(tmp_path):
    content = good_content()
    for annotation in content["annotations"][:2]:
        x, y, w, h = annotation["bbox"]
        annotation["bbox"] = [x, y, x + w, y + h]
    found = findings_of(*write(tmp_path, content))
    assert [(x.code, x.annotation_id) for x in found] == [
        ("box_looks_xyxy", 10),
        ("box_looks_xyxy", 11),
    ]
    assert "as XYXY" in found[0].message


def test_corners_need_the_agreement_of_the_whole_image(tmp_path):
    content = good_content()
    content["annotations"][0]["bbox"] = [50, 20, 90, 60]
    content["annotations"][1]["bbox"] = [50, 20, 30, 10]  # x2 < x1 as corners
    (finding,) = findings_of(*write(tmp_path, content))
    assert finding.code == "box_over_border"


def test_corners_in_a_whole_dataset_take_in_boxes_that_would_fit(tmp_path):
    content = good_content()
    for annotation in content["annotations"]:
        x, y, w, h = annotation["bbox"]
        annotation["bbox"] = [x, y, x + w, y + h]
    content["annotations"][-1]["bbox"] = [5, 5, 10, 10]  # all of the last image fits either way
    found = findings_of(*write(tmp_path, content))
    assert {x.code for x in found} == {"box_looks_xyxy"}
    assert [x.annotation_id for x in found] == [10, 11, 20, 21, 30, 31, 40, 41]


def test_duplicate_box_names_the_first_one(tmp_path):
    content = good_content()
    again = {**content["annotations"][0], "id": 77}
    other_class = {**content["annotations"][0], "id": 78, "category_id": 7}
    other_image = {**content["annotations"][0], "id": 79, "image_id": 2, "bbox": [1, 1, 9, 9]}
    content["annotations"] += [again, other_class, other_image]
    (finding,) = findings_of(*write(tmp_path, content))
    assert finding.code == "duplicate_box" and finding.severity == "warning"
    assert finding.annotation_id == 77 and "annotation 10" in finding.message


def test_three_equal_boxes_are_two_duplicates_of_the_first(tmp_path):
    content = good_content()
    content["annotations"] += [{**content["annotations"][0], "id": i} for i in (77, 78)]
    found = findings_of(*write(tmp_path, content))
    assert [x.annotation_id for x in found] == [77, 78]
    assert all("annotation 10" in x.message for x in found)


def test_duplicates_without_ids_are_told_by_their_place_in_the_image():
    box = {"bbox": [10, 10, 30, 20], "bbox_mode": BoxMode.XYWH_ABS, "category_id": 0}
    other = {**box, "bbox": [40, 10, 30, 20]}
    image = {"width": WIDTH, "height": HEIGHT}
    dicts = [
        {**image, "file_name": "/a.png", "annotations": [other]},
        {**image, "file_name": "/b.png", "annotations": [other, box, box]},
    ]
    found = findings_of_table(from_dataset_dicts(dicts, ["cat"], "train"))
    (finding,) = [x for x in found if x.code == "duplicate_box"]
    assert finding.message.endswith("repeat those of box 2 of the image")


def test_dataset_dicts_are_checked_in_their_own_mode():
    def record(name, bbox, mode):
        box = {"bbox": bbox, "bbox_mode": mode, "category_id": 0}
        return {"file_name": name, "width": WIDTH, "height": HEIGHT, "annotations": [box]}

    dicts = [
        record("/a.png", [10, 10, 90, 60], BoxMode.XYXY_ABS),  # fine as corners
        record("/b.png", [50, 40, 30, 20], BoxMode.XYXY_ABS),  # XYWH given as corners
        record("/c.png", [50, 40, 30, 20], BoxMode.XYWH_ABS),
        record("/d.png", [50, 40, 30, 20, 5], BoxMode.XYWHA_ABS),
    ]
    table = from_dataset_dicts(dicts, ["cat"], "pets")
    faulty = [(x.code, x.file) for x in findings_of_table(table) if "image" not in x.code]
    assert sorted(faulty) == [("box_inverted", "/b.png"), ("box_malformed", "/d.png")]
    assert usable_boxes(table).tolist() == [True, False, True, False]


def test_crowds_are_checked_but_are_no_objects(tmp_path):
    content = edited(iscrowd=1, bbox=[30, 20, 0, 12])
    (finding,) = findings_of(*write(tmp_path, content))
    assert finding.code == "box_no_area"


def test_no_boxes_and_no_images_are_no_crash(tmp_path):
    content = {**good_content(), "images": [], "annotations": []}
    assert findings_of(*write(tmp_path, content)) == []
    assert np.shape(usable_boxes(from_dataset_dicts([], [], "none"))) == (0,)
