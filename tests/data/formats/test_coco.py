"""COCO json: odd but legal files, where images are looked for, and broken ones."""

from __future__ import annotations

import json
import logging

import pytest

from retinanet_ext.data.formats import Inputs, Source
from retinanet_ext.data.formats.coco import read_coco
from tests.helpers.four_formats import Picture, write_images


def content(**changes):
    return {
        "images": [
            {"id": 9, "file_name": "b.png", "width": 20, "height": 10},
            {"id": 4, "file_name": "a.png", "width": 40, "height": 30},
        ],
        "categories": [{"id": 8, "name": "bee"}, {"id": 3, "name": "ant"}],
        "annotations": [
            {"id": 1, "image_id": 4, "category_id": 8, "bbox": [1, 2, 10, 20], "iscrowd": 0},
            {"id": 2, "image_id": 4, "category_id": 3, "bbox": [1, 2, 3, 4], "iscrowd": 1},
        ],
        **changes,
    }


def read(root, data, name="instances_train.json", **fields):
    path = root / "annotations" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(data if isinstance(data, str) else json.dumps(data))
    fields = {"images": str(root), **fields}
    return read_coco(Source(str(path), format="coco", **fields), Inputs())


def test_images_and_classes_are_in_the_order_of_their_ids(tmp_path):
    table = read(tmp_path, content())
    assert table.image_ids.tolist() == [4, 9] and table.starts.tolist() == [0, 2, 2]
    assert table.class_names == ["ant", "bee"] and table.category_ids == [3, 8]
    assert table.classes.tolist() == [1, 0] and table.crowd.tolist() == [False, True]
    assert table.boxes.tolist() == [[1, 2, 11, 22], [1, 2, 4, 6]]


def annotations(**fields):
    row = {"id": 1, "image_id": 4, "category_id": 8, "bbox": [1, 2, 3, 4]}
    return content(annotations=[{**row, **fields}])


@pytest.mark.parametrize(
    "data",
    [
        annotations(ignore=1),
        annotations(id=0),
        annotations(id=None),
        content(annotations=2 * annotations()["annotations"]),
        content(images=[{"id": "x", "file_name": "a.png", "width": 4, "height": 3}]),
    ],
)
def test_a_json_that_coco_code_misreads_is_no_ground_truth_itself(tmp_path, data):
    assert read(tmp_path, annotations()).category_ids == [3, 8]
    assert read(tmp_path, data).category_ids == []


def test_ignored_objects_are_crowds(tmp_path):
    assert read(tmp_path, annotations(ignore=1)).crowd.tolist() == [True]


def test_ids_that_are_text_are_numbered(tmp_path):
    images = [{"id": x, "file_name": f"{x}.png", "width": 4, "height": 3} for x in "ba"]
    table = read(tmp_path, content(images=images, annotations=[]))
    assert table.image_ids.tolist() == [1, 2]
    assert [name[-5:] for name in table.file_names] == ["a.png", "b.png"]


def test_a_json_without_annotations_has_negative_images(tmp_path):
    data = content()
    del data["annotations"]
    assert [r["annotations"] for r in read(tmp_path, data).records()] == [[], []]


def test_a_missing_size_is_read_from_the_image(tmp_path):
    write_images(tmp_path, [Picture("a.png", 40, 30)])
    images = [{"id": 4, "file_name": "a.png"}]
    assert read(tmp_path, content(images=images)).sizes.tolist() == [[30, 40]]


@pytest.mark.parametrize(
    "folder", ["annotations", "annotations/images", ".", "images", "train", "images/train"]
)
def test_images_are_looked_for_in_the_usual_folders(tmp_path, folder):
    write_images(tmp_path / folder, [Picture("a.png", 40, 30)])
    table = read(tmp_path, content(), images="")
    assert table.file_names[0] == str(tmp_path / folder / "a.png")


def test_images_that_are_nowhere_say_where_was_looked(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"a\.png is in none of .*train.*IMAGE_DIR"):
        read(tmp_path, content(), images="")


def test_annotations_of_no_image_are_warned_of(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        assert len(read(tmp_path, annotations(image_id=5)).boxes) == 0
    assert "1 annotations belong to no image" in caplog.text


@pytest.mark.parametrize(
    "data, words",
    [
        ("{", "is not json: "),
        ("[]", "no list 'images'"),
        (content(categories=[]), "no list 'categories'"),
        (content(images=[{"id": 1}]), "entry 0 of 'images' has no id or file_name"),
        (content(annotations=[1]), "'annotations' is not a list of objects"),
        (content(images=[{"id": 1, "file_name": x} for x in "ab"]), "id 1 is .*twice, for a and b"),
        (content(categories=[{"id": i, "name": "ant"} for i in (1, 2)]), "class 1 is 'ant'"),
        (annotations(category_id=5), r"annotation 1: category_id is 5, .*\(3, 8\)"),
        (annotations(bbox=[]), r"annotation 1: bbox is \[\], but.*; correct or remove it"),
        (annotations(bbox=None, segmentation=[[1, 1, 5, 1, 5, 5]]), "bounds of its mask there"),
        (annotations(bbox=[1, 2, None, 4]), "annotation 1: bbox is None, but"),
        (annotations(bbox=[1, 2, float("nan"), 4]), "annotation 1: bbox is nan, but"),
    ],
)
def test_errors_name_file_entry_and_fault(tmp_path, data, words):
    with pytest.raises(ValueError, match=rf"instances_train\.json.*{words}"):
        read(tmp_path, data)
