"""Faults of ids, categories and names; what a json must at least be."""

from __future__ import annotations

import json

import pytest

from retinanet_ext.data.doctor import from_coco_json
from tests.helpers.broken import edited, findings_of, findings_of_table, good_content, write


def only(content, tmp_path):
    (finding,) = findings_of(*write(tmp_path, content))
    return finding


def test_duplicate_annotation_id(tmp_path):
    content = edited(id=21)
    finding = only(content, tmp_path)
    assert finding.code == "duplicate_annotation_id" and finding.annotation_id == 21
    assert finding.file.endswith("2.png") and "21" in finding.message


def test_duplicate_image_id(tmp_path):
    content = good_content()
    content["images"].append({**content["images"][0], "file_name": "2.png"})
    finding = findings_of(*write(tmp_path, content))[0]
    assert finding.code == "duplicate_image_id" and "image id 1 was used" in finding.message


def test_file_that_is_listed_twice(tmp_path):
    content = good_content()
    content["images"].append({**content["images"][0], "id": 9, "file_name": "./1.png"})
    finding = only(content, tmp_path)
    assert finding.code == "duplicate_image" and "image id 9" in finding.message
    assert finding.severity == "warning"


@pytest.mark.parametrize("category", [4, None, "cat", [3], True])
def test_unknown_category(tmp_path, category):
    finding = only(edited(category_id=category), tmp_path)
    assert finding.code == "unknown_category" and finding.annotation_id == 10
    assert repr(category) in finding.message and "[3, 7]" in finding.message
    assert finding.file.endswith("1.png")


def test_unknown_image_is_named_with_the_json(tmp_path):
    finding = only(edited(image_id=77), tmp_path)
    assert finding.code == "unknown_image" and "77" in finding.message
    assert finding.file.endswith("train.json") and finding.annotation_id == 10


def test_annotation_without_id(tmp_path):
    content = good_content()
    del content["annotations"][3]["id"]
    finding = only(content, tmp_path)
    assert finding.code == "missing_id" and "entry 3 of the annotations" in finding.message


def test_annotation_id_zero(tmp_path):
    finding = only(edited(id=0), tmp_path)
    assert finding.code == "annotation_id_zero" and finding.severity == "warning"


@pytest.mark.parametrize("key", ["width", "height"])
@pytest.mark.parametrize("value", [None, "wide", 0, True])
def test_missing_size(tmp_path, key, value):
    content = good_content()
    content["images"][1][key] = value
    finding = only(content, tmp_path)
    assert finding.code == "missing_size" and finding.file.endswith("2.png")


def test_a_size_that_is_written_as_text_counts_as_for_training(tmp_path):
    content = good_content()
    content["images"][1] |= {"width": "96", "height": "64.0"}
    json_file, image_root = write(tmp_path, content)
    assert findings_of(json_file, image_root, read_images=True) == []
    content["images"][1]["width"] = "97"
    json_file.write_text(json.dumps(content))
    assert [x.code for x in findings_of(json_file, image_root, True)] == ["wrong_size"]


@pytest.mark.parametrize("value, crowd", [("0", False), ("1", True), ("true", True), (None, False)])
def test_flags_that_are_written_as_text_count_as_for_training(tmp_path, value, crowd):
    table = from_coco_json(*write(tmp_path, edited(iscrowd=value)))
    assert table.is_crowd.tolist() == [crowd, *[False] * 7]
    assert findings_of_table(table) == []


@pytest.mark.parametrize("value", ["crowd", [0], 2])
def test_a_flag_that_training_refuses_is_named(tmp_path, value):
    finding = only(edited(iscrowd=value), tmp_path)
    assert finding.code == "wrong_flag" and finding.severity == "error"
    assert finding.message == f"iscrowd is {value!r}, but must be 0 or 1"


def test_image_without_file_name(tmp_path):
    content = good_content()
    del content["images"][1]["file_name"]
    finding = only(content, tmp_path)
    assert finding.code == "missing_id" and "entry 1 of the images" in finding.message


@pytest.mark.parametrize("more", [{"id": 3, "name": "cow"}, {"id": 8, "name": "cat"}])
def test_duplicate_category(tmp_path, more):
    content = good_content()
    content["categories"].append(more)
    finding = only(content, tmp_path)
    assert finding.code == "duplicate_category" and finding.file.endswith("train.json")


def test_missing_file_is_found_without_reading_images(tmp_path):
    json_file, image_root = write(tmp_path, good_content())
    (image_root / "3.png").unlink()
    (finding,) = findings_of(json_file, image_root)
    assert finding.code == "missing_image" and finding.file == str(image_root / "3.png")


def test_json_alone_looks_for_no_files(tmp_path):
    json_file, _ = write(tmp_path, good_content())
    assert findings_of(json_file, "") == []


def test_entries_of_any_kind_are_findings_and_no_crash(tmp_path):
    content = good_content()
    content["annotations"] += [None, "text", {}]
    content["images"] += [None, {"id": [1], "file_name": 5}]
    codes = {x.code for x in findings_of(*write(tmp_path, content))}
    assert {"unknown_image", "unknown_category", "missing_id", "box_malformed"} <= codes


@pytest.mark.parametrize(
    "text,words", [("{", "is not json"), ("[]", "'images'"), ('{"images": []}', "'annotations'")]
)
def test_what_is_no_coco_json_is_one_error(tmp_path, text, words):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(ValueError, match=r"a\.json") as error:
        from_coco_json(tmp_path / "a.json")
    assert words in str(error.value)


def test_missing_json_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no\.json"):
        from_coco_json(tmp_path / "no.json")
