"""check-data reads what training reads, and says what training refuses."""

from __future__ import annotations

import json
import re

import pytest

from retinanet_ext.cli import main
from tests.helpers.broken import good_content, write
from tests.helpers.four_formats import Picture, some_pictures, write_images
from tests.helpers.four_formats import write as write_as

NAMES = ["ant", "bee", "cat"]
FOLDERS = {"coco": "pictures", "voc": "JPEGImages", "yolo": "images", "csv": "pictures"}

pytestmark = pytest.mark.usefixtures("clean_catalogs")


def check(*words: str) -> int:
    return main(["check-data", *words])


def report_of(tmp_path, *words):
    path = tmp_path / "report.json"
    code = check(*words, "--json", str(path))
    content = json.loads(path.read_text())
    assert content["exit_code"] == code
    return code, content


@pytest.mark.parametrize("images", [[], ["--images"]])
@pytest.mark.parametrize("given", [False, True])
def test_a_json_without_any_of_its_pictures_is_one_error(given, images, tmp_path, capsys):
    json_file, image_root = write(tmp_path, good_content())
    for path in image_root.iterdir():
        path.unlink()
    spec = f"{json_file}:{image_root}" if given else str(json_file)
    code, content = report_of(tmp_path, "--train", spec, *images)
    assert code == 2 and [x["code"] for x in content["findings"]] == ["no_images"]
    assert "1.png" in content["findings"][0]["message"]
    assert "Nothing found" not in capsys.readouterr().out
    fixed = tmp_path / "fixed.json"
    assert check("--train", spec, "--fix", str(fixed), *images) == 2
    assert json.loads(fixed.read_text())["images"] == good_content()["images"]


@pytest.mark.parametrize("images", [[], ["--images"]])
@pytest.mark.parametrize("kind", FOLDERS)
def test_all_bad_pictures_are_listed_and_left_out_by_fix(kind, images, tmp_path):
    flag = write_as(kind, tmp_path / "data", some_pictures(8), NAMES)
    folder = tmp_path / "data" / FOLDERS[kind]
    (folder / "p01.png").unlink()
    (folder / "p02.png").write_bytes(b"no picture")
    (folder / "p05.png").write_bytes((folder / "p05.png").read_bytes()[:-25])
    if kind == "yolo":  # a folder does not tell what is missing from it
        lines = "".join(f"images/p0{i}.png\n" for i in range(8))
        (tmp_path / "data" / "list.txt").write_text(lines)
        (tmp_path / "data" / "data.yaml").write_text(f"train: list.txt\nnames: {NAMES}\n")
    fixed = tmp_path / "fixed.json"
    code, content = report_of(tmp_path, "--train", flag, "--fix", str(fixed), *images)
    found = {x["file"].rsplit("/", 1)[1]: x["code"] for x in content["findings"]}
    wanted = {"p01.png": "missing_image"}
    if images or kind in ("yolo", "csv"):  # the others record the sizes, and open no picture
        wanted["p02.png"] = wanted["p05.png"] = "unreadable_image"
    if images:
        wanted["p05.png"] = "truncated_image"
    assert code == 2 and found == wanted
    left = {x["file_name"].rsplit("/", 1)[-1] for x in json.loads(fixed.read_text())["images"]}
    assert left == {f"p0{i}.png" for i in range(8)} - set(wanted)


def test_the_val_list_of_a_data_yaml_is_checked_as_training_takes_it(tmp_path, capsys):
    write_as("yolo", tmp_path, some_pictures(), NAMES)
    write_images(tmp_path / "val" / "images", [Picture("v.png", 40, 30)])
    (tmp_path / "val" / "labels").mkdir()
    (tmp_path / "val" / "labels" / "v.txt").write_text("2 0.5 0.5 0 0\n")
    path = tmp_path / "data.yaml"
    path.write_text(f"train: images\nval: val/images\nnames: {NAMES}\n")
    code, content = report_of(tmp_path, "--train", str(path))
    assert {name: x["images"] for name, x in content["datasets"].items()} == {"train": 6, "val": 1}
    assert code == 2
    assert ("box_no_area", "val") in {(x["code"], x["dataset"]) for x in content["findings"]}
    _, content = report_of(tmp_path, "--train", f"{path}:{tmp_path / 'images'}")
    assert list(content["datasets"]) == ["train"]  # these images are all that is meant


def test_folders_of_train_and_test_are_both_checked(tmp_path):
    for part, name in (("train", "a"), ("test", "b")):
        write_images(tmp_path / "images" / part, [Picture(f"{name}.png", 40, 30)])
        (tmp_path / "images" / part / f"{name}.xml").write_text(
            "<annotation><object><name>ant</name><bndbox><xmin>2</xmin><ymin>2</ymin>"
            "<xmax>30</xmax><ymax>29</ymax></bndbox></object></annotation>"
        )
    code, content = report_of(tmp_path, "--train", str(tmp_path))
    assert list(content["datasets"]) == ["train", "val"] and code == 0


@pytest.mark.parametrize("val_names, codes", [(["bee", "cat"], []), (["cat", "dog"], ["dog"])])
def test_classes_that_training_matches_by_name_are_no_fault(val_names, codes, tmp_path):
    train = write_as("coco", tmp_path / "a", some_pictures(), NAMES)
    boxes = [(name, 5.0, 5.0, 25.0, 25.0) for name in val_names]
    val = write_as("coco", tmp_path / "b", [Picture("v.png", 60, 60, boxes)], val_names)
    _, content = report_of(tmp_path, "--train", train, "--val", val)
    found = [x for x in content["findings"] if x["code"] == "different_classes"]
    assert len(found) == len(codes) and all("objects of dog" in x["message"] for x in found)


def test_the_fixed_copy_has_file_names_that_are_found(tmp_path):
    content = good_content()
    for image in content["images"]:
        image["file_name"] = f"C:\\data\\{image['file_name']}"
    json_file, image_root = write(tmp_path, content)
    fixed = tmp_path / "fixed.json"
    assert check("--train", f"{json_file}:{image_root}", "--fix", str(fixed)) == 0
    names = [x["file_name"] for x in json.loads(fixed.read_text())["images"]]
    assert names == [x["file_name"] for x in good_content()["images"]]


@pytest.mark.parametrize(
    "entry, words",
    [
        ({"id": 7, "name": ["dog"]}, r"name"),
        ({"id": "7", "name": "dog"}, r"id is '7'"),
        ({"id": 7, "name": False}, r"is False"),
    ],
)
def test_what_only_the_reader_of_training_refuses_is_an_error_too(entry, words, tmp_path):
    content = good_content()
    content["categories"][1] = entry
    content["annotations"] = [x for x in content["annotations"] if x["category_id"] == 3]
    json_file, image_root = write(tmp_path, content)
    code, report = report_of(tmp_path, "--train", f"{json_file}:{image_root}")
    assert code == 2
    (finding,) = [x for x in report["findings"] if x["severity"] == "error"]
    assert finding["code"] == "refused" and re.search(words, finding["message"])
