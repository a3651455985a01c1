"""The cleaned copy: clean when checked again, with every change listed, the original untouched."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest
from detectron2.structures import BoxMode
from PIL import Image

from retinanet_ext.data.doctor import (
    clean,
    from_coco_content,
    from_dataset_dicts,
    read_images,
    to_coco,
)
from retinanet_ext.data.doctor.images import ORIENTATION_TAG
from tests.helpers.broken import HEIGHT, WIDTH, edited, findings_of_table, good_content, write


def fixed(tmp_path, content, read=False, **more):
    """Cleaned content and changes; checks that nothing is left and the input is as it was."""
    folder = tmp_path / "train"
    if not folder.exists():
        write(tmp_path, content)
    table = from_coco_content(content, "train.json", folder)
    facts = read_images(table.files) if read else None
    before = copy.deepcopy(content)
    result, changes = clean(content, "train.json", folder, facts=facts, **more)
    assert repr(content) == repr(before)  # NaN is not equal to itself
    again = from_coco_content(json.loads(json.dumps(result)), "train.json", folder, "fixed")
    assert findings_of_table(again, read) == []
    return result, changes


def test_good_content_stays_as_it_is(tmp_path):
    result, changes = fixed(tmp_path, good_content())
    assert result == good_content() and changes == []


@pytest.mark.parametrize(
    "before,after",
    [
        ([30, 20, -10, 12], [20.0, 20.0, 10.0, 12.0]),
        ([90, 20, 10, 10], [90.0, 20.0, 6.0, 10.0]),
        ([-5, -6, 30, 30], [0.0, 0.0, 25.0, 24.0]),
        ([0.25, 0.5, 0.5, 0.25], [24.0, 32.0, 48.0, 16.0]),
        ([0.75, 0.5, 0.5, 0.25], [48.0, 24.0, 48.0, 16.0]),  # centre, width, height
        ([0.4, 0.4, 0.9, 0.9], [38.4, 25.6, 48.0, 32.0]),  # corners
    ],
)
def test_boxes_are_corrected(tmp_path, before, after):
    result, (change,) = fixed(tmp_path, edited(bbox=before))
    assert result["annotations"][0]["bbox"] == after
    assert result["annotations"][0]["area"] == after[2] * after[3]
    assert change.annotation_id == 10 and str(after) in change.change
    assert result["annotations"][1:] == good_content()["annotations"][1:]


@pytest.mark.parametrize(
    "of_first",
    [
        {"bbox": [1, 2, 3]},
        {"bbox": [1, 2, float("nan"), 4]},
        {"bbox": [30, 20, 0, 12]},
        {"bbox": [300, 20, 10, 12]},
        {"category_id": 5},
        {"image_id": 50},
    ],
)
def test_hopeless_annotations_are_removed(tmp_path, of_first):
    result, (change,) = fixed(tmp_path, edited(**of_first))
    assert result["annotations"] == good_content()["annotations"][1:]
    assert change.change == "annotation removed" and change.annotation_id == 10


def test_corners_become_xywh(tmp_path):
    content = good_content()
    for annotation in content["annotations"]:
        x, y, w, h = annotation["bbox"]
        annotation["bbox"] = [x, y, x + w, y + h]
    result, changes = fixed(tmp_path, content)
    assert result == good_content() and len(changes) == 8


def test_duplicates_and_ids(tmp_path):
    content = good_content()
    content["annotations"].append({**content["annotations"][0], "id": 77})
    content["annotations"][2]["id"] = 0
    content["annotations"][3]["id"] = 10
    del content["annotations"][4]["id"]
    content["annotations"][5]["id"] = 1  # not to be given to another one
    result, changes = fixed(tmp_path, content)
    ids = [x["id"] for x in result["annotations"]]
    assert len(result["annotations"]) == 8 and len(set(ids)) == 8 and min(ids) > 0
    assert (
        ids[0] == 10
        and ids[5] == 1
        and {x.code for x in changes} >= {"duplicate_box", "annotation_id_zero"}
    )


def test_entries_of_one_file_are_joined(tmp_path):
    content = good_content()
    content["images"].append({**content["images"][0], "id": 9})
    content["annotations"][1]["image_id"] = 9
    result, _ = fixed(tmp_path, content)
    assert result == good_content()


def test_image_id_of_two_files_takes_both_out(tmp_path):
    content = good_content()
    content["images"][1]["id"] = 1
    result, _ = fixed(tmp_path, content)
    assert [x["id"] for x in result["images"]] == [3, 4]
    assert {x["image_id"] for x in result["annotations"]} == {3, 4}


def test_bad_files_are_taken_out_and_sizes_set(tmp_path):
    content = good_content()
    content["images"][3]["width"] = 500
    _, folder = write(tmp_path, content)
    (folder / "1.png").write_bytes(b"")
    (folder / "2.png").unlink()
    (folder / "3.png").write_bytes((folder / "4.png").read_bytes())
    result, changes = fixed(tmp_path, content, read=True)
    # 4.png has the pixels of 3.png, which comes first.
    assert result["images"] == good_content()["images"][2:3]
    assert [x["id"] for x in result["annotations"]] == [30, 31]
    assert {x.code for x in changes} == {"unreadable_image", "missing_image", "duplicate_image"}


def test_size_is_taken_from_the_file(tmp_path):
    content = good_content()
    content["images"][3]["width"] = 500
    del content["images"][2]["height"]
    result, changes = fixed(tmp_path, content, read=True)
    assert result["images"] == good_content()["images"]
    assert [x.change for x in changes] == ["size set to 96 x 64"] * 2


@pytest.mark.parametrize("follows", [False, True])
def test_boxes_are_turned_with_the_image(tmp_path, follows):
    content = good_content()
    if follows:  # the recorded size does, the boxes do not
        content["images"][0].update(width=HEIGHT, height=WIDTH)
    _, folder = write(tmp_path, content)
    exif = Image.Exif()
    exif[ORIENTATION_TAG] = 6
    noise = np.random.default_rng(5).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    Image.fromarray(noise).save(folder / "1.png", format="JPEG", exif=exif)
    result, _ = fixed(tmp_path, content, read=True)
    assert (result["images"][0]["width"], result["images"][0]["height"]) == (HEIGHT, WIDTH)
    # [4, 6, 34, 30] turned clockwise: x from 64 - 30 to 64 - 6, y from 4 to 34.
    assert result["annotations"][0]["bbox"] == [34.0, 4.0, 24.0, 30.0]
    # Cut at the border only after it was turned: then it is inside.
    assert result["annotations"][1]["bbox"] == [4.0, 50.0, 40.0, 40.0]


def test_leaked_images_are_taken_out(tmp_path):
    json_file, folder = write(tmp_path, good_content())
    val = good_content()
    val["images"] = val["images"][:1]
    table = from_coco_content(val, str(json_file), folder, "val")
    result, (change,) = fixed(tmp_path, good_content(), val=table)
    assert [x["id"] for x in result["images"]] == [2, 3, 4]
    assert change.code == "leakage" and "2 annotation(s)" in change.change


def test_dataset_of_another_format_becomes_a_coco_json(tmp_path):
    _, folder = write(tmp_path, good_content())
    dicts = [
        {
            "file_name": str(folder / f"{i}.png"),
            "width": WIDTH,
            "height": HEIGHT,
            "annotations": [
                {"bbox": [4, 6, 34, 30], "bbox_mode": BoxMode.XYXY_ABS, "category_id": 1}
            ],
        }
        for i in (1, 2)
    ]
    content = to_coco(from_dataset_dicts(dicts, ["cat", "dog"], "pets"))
    assert [x["bbox"] for x in content["annotations"]] == [[4.0, 6.0, 30.0, 24.0]] * 2
    assert [x["category_id"] for x in content["annotations"]] == [2, 2]
    table = from_coco_content(content, "pets", "/", "pets")
    assert table.files == [x["file_name"] for x in dicts]
    assert findings_of_table(table) == []


def test_numbers_that_are_texts_become_numbers(tmp_path):
    content = good_content()
    content["annotations"][0]["bbox"] = ["4.0", "6", "30.0", 24.0]
    content["annotations"][1]["bbox"] = ["4.0", "six", "30.0", 24.0]
    json_file, image_root = write(tmp_path, content)
    result, changes = clean(content, str(json_file), image_root)
    assert [a["bbox"] for a in result["annotations"][:1]] == [[4.0, 6.0, 30.0, 24.0]]
    assert len(result["annotations"]) == len(content["annotations"]) - 1
    assert [x.code for x in changes] == ["box_malformed", "box_as_text"]


def sideways(tmp_path, *bboxes):
    """Pictures that EXIF turns to 64 x 96, recorded as 96 x 64, with one box each."""
    content = good_content()
    content["images"] = content["images"][: len(bboxes)]
    json_file, image_root = write(tmp_path, content)
    exif = Image.Exif()
    exif[ORIENTATION_TAG] = 6
    content["annotations"] = content["annotations"][: len(bboxes)]
    for i, bbox in enumerate(bboxes):
        path = image_root / content["images"][i]["file_name"]
        noise = np.random.default_rng(i).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
        Image.fromarray(noise).save(path, exif=exif)
        content["annotations"][i].update(image_id=content["images"][i]["id"], bbox=list(bbox))
    facts = read_images(str(image_root / x["file_name"]) for x in content["images"])
    return clean(content, str(json_file), image_root, facts=facts)[0]


def test_boxes_that_fit_the_shown_picture_only_are_not_turned(tmp_path):
    result = sideways(tmp_path, [10.0, 60.0, 30.0, 30.0])
    assert result["annotations"][0]["bbox"] == [10.0, 60.0, 30.0, 30.0]
    assert (result["images"][0]["width"], result["images"][0]["height"]) == (HEIGHT, WIDTH)


def test_nor_those_beside_them_that_fit_both_ways(tmp_path):
    result = sideways(tmp_path, [10.0, 60.0, 30.0, 30.0], [4.0, 6.0, 30.0, 24.0])
    assert result["annotations"][1]["bbox"] == [4.0, 6.0, 30.0, 24.0]


def test_entries_of_one_file_but_of_two_sizes_are_not_joined(tmp_path):
    content = good_content()
    content["images"][1].update(file_name="1.png", width=WIDTH - 2)
    json_file, image_root = write(tmp_path, good_content())
    result, _ = clean(content, str(json_file), image_root)
    assert len(result["images"]) == len(content["images"])
    assert [a["image_id"] for a in result["annotations"]] == [
        a["image_id"] for a in content["annotations"]
    ]
