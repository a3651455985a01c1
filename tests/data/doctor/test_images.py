"""Faults of image files: each is found, named with the file, and alone."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageOps

from retinanet_ext.data.doctor import clean, from_coco_json, read_images
from retinanet_ext.data.doctor.images import ORIENTATION_TAG, turn_boxes
from retinanet_ext.data.doctor.leakage import compare_tables
from tests.helpers.broken import HEIGHT, WIDTH, findings_of, good_content, write


def only(json_file, image_root):
    (finding,) = findings_of(json_file, image_root, read_images=True)
    return finding


def save_jpeg(path, size, orientation=1):
    exif = Image.Exif()
    exif[ORIENTATION_TAG] = orientation
    noise = np.random.default_rng(5).integers(0, 256, (size[1], size[0], 3), np.uint8)
    Image.fromarray(noise).save(path, format="JPEG", exif=exif)


def test_good_images_have_no_findings(tmp_path):
    assert findings_of(*write(tmp_path, good_content()), read_images=True) == []


def test_missing_image(tmp_path):
    json_file, image_root = write(tmp_path, good_content())
    (image_root / "2.png").unlink()
    finding = only(json_file, image_root)
    assert finding.code == "missing_image" and finding.file == str(image_root / "2.png")


@pytest.mark.parametrize("content,words", [(b"", "empty"), (b"no image" * 9, "cannot be read")])
def test_unreadable_image(tmp_path, content, words):
    json_file, image_root = write(tmp_path, good_content())
    (image_root / "2.png").write_bytes(content)
    finding = only(json_file, image_root)
    assert finding.code == "unreadable_image" and finding.file == str(image_root / "2.png")
    assert words in finding.message and finding.severity == "error"


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_truncated_image(tmp_path, kind):
    json_file, image_root = write(tmp_path, good_content())
    path = image_root / "2.png"
    with Image.open(path) as image:
        image.load()
    image.save(path, format=kind)
    path.write_bytes(path.read_bytes()[:-2000])
    finding = only(json_file, image_root)
    assert finding.code == "truncated_image" and finding.file == str(path)


def test_pixels_of_more_than_eight_bits_need_a_rule_and_are_no_reason_to_remove_a_picture(tmp_path):
    json_file, image_root = write(tmp_path, good_content())
    path = image_root / "2.png"
    Image.fromarray(np.full((HEIGHT, WIDTH), 40_000, np.uint16)).save(path)
    finding = only(json_file, image_root)
    assert finding.code == "deep_pixels" and finding.file == str(path)
    assert "INPUT.SIXTEEN_BIT" in finding.message and "40000" in finding.message
    facts = read_images([str(path)])
    content, changes = clean(good_content(), str(json_file), image_root, facts=facts)
    assert content == good_content() and changes == []


def test_wrong_recorded_size(tmp_path):
    content = good_content()
    content["images"][2].update(width=200, height=100)
    finding = only(*write(tmp_path, content))
    assert finding.code == "wrong_size" and finding.file.endswith("3.png")
    assert "200 x 100" in finding.message and "96 x 64" in finding.message


def test_exif_rotation_that_the_recorded_size_does_not_follow(tmp_path):
    json_file, image_root = write(tmp_path, good_content())
    save_jpeg(image_root / "1.png", (WIDTH, HEIGHT), orientation=6)
    finding = only(json_file, image_root)
    assert finding.code == "exif_rotation" and finding.file == str(image_root / "1.png")
    assert "orientation 6" in finding.message and "64 x 96" in finding.message


def test_exif_rotation_that_only_the_boxes_do_not_follow(tmp_path):
    content = good_content()
    content["images"][0].update(width=HEIGHT, height=WIDTH)
    json_file, image_root = write(tmp_path, content)
    save_jpeg(image_root / "1.png", (WIDTH, HEIGHT), orientation=8)
    codes = [x.code for x in findings_of(json_file, image_root, read_images=True)]
    assert "exif_rotation" in codes and "wrong_size" not in codes


def test_exif_rotation_that_size_and_boxes_follow_is_fine(tmp_path):
    json_file, image_root = write(tmp_path, good_content())
    save_jpeg(image_root / "1.png", (HEIGHT, WIDTH), orientation=6)
    assert findings_of(json_file, image_root, read_images=True) == []


def test_exif_turn_that_sizes_cannot_tell_is_a_warning(tmp_path):
    json_file, image_root = write(tmp_path, good_content())
    save_jpeg(image_root / "1.png", (WIDTH, HEIGHT), orientation=3)
    finding = only(json_file, image_root)
    assert finding.code == "exif_unsure" and finding.severity == "warning"


@pytest.mark.parametrize("orientation", range(1, 9))
def test_boxes_turn_as_the_pixels_do(orientation):
    pixels = np.zeros((HEIGHT, WIDTH), np.uint8)
    pixels[5:20, 10:60] = 255
    exif = Image.Exif()
    exif[ORIENTATION_TAG] = orientation
    image = Image.fromarray(pixels)
    image.getexif()[ORIENTATION_TAG] = orientation
    turned = np.asarray(ImageOps.exif_transpose(image))
    rows, columns = np.nonzero(turned)
    expected = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    box = turn_boxes(np.array([[10.0, 5.0, 60.0, 20.0]]), WIDTH, HEIGHT, orientation)
    assert box.tolist() == [expected]


def test_same_pixels_under_another_name_and_format(tmp_path):
    json_file, image_root = write(tmp_path, good_content())
    with Image.open(image_root / "1.png") as image:
        image.load()
    image.save(image_root / "4.png", format="BMP")
    finding = only(json_file, image_root)
    assert finding.code == "duplicate_image" and finding.severity == "warning"
    assert finding.file == str(image_root / "4.png") and "1.png" in finding.message


def leaks(train, val, facts=None):
    faults = compare_tables(train, val, facts)
    return [
        (x.code, i, x.message(i)) for x in faults for i in x.rows.tolist() if x.code == "leakage"
    ]


def test_leakage_by_the_same_file(tmp_path):
    train_json, image_root = write(tmp_path, good_content())
    val = good_content()
    val["images"] = [{**val["images"][2], "id": 1}]
    val_json, _ = write(tmp_path, val, "val")
    tables = [from_coco_json(x, image_root, x.stem) for x in (train_json, val_json)]
    assert leaks(*tables) == [("leakage", 2, "it is in 'val' too")]


def test_leakage_by_the_same_pixels_takes_reading(tmp_path):
    train = from_coco_json(*write(tmp_path, good_content()), "train")
    val_json, val_root = write(tmp_path, good_content(), "val")
    (val_root / "1.png").write_bytes((tmp_path / "train" / "4.png").read_bytes())
    val = from_coco_json(val_json, val_root, "val")
    assert leaks(train, val) == []
    ((code, row, message),) = leaks(train, val, read_images(train.files + val.files))
    assert code == "leakage" and row == 3 and str(val_root / "1.png") in message


def test_different_classes(tmp_path):
    train = from_coco_json(*write(tmp_path, good_content()), "train")
    content = good_content()
    content["categories"][0]["id"] = 8  # now after the dog
    val = from_coco_json(*write(tmp_path, content, "val"), "val")
    fault = compare_tables(train, val)[-1]
    assert fault.code == "different_classes"
    assert "(cat, dog)" in fault.message(0) and "(dog, cat)" in fault.message(0)
