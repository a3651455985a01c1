"""Folders as people and tools have them: which files are the training and the validation set."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from retinanet_ext.data.datasets.command_line import has_own_val, source_of
from retinanet_ext.data.formats import read_cached

Layout = Callable[[Path], None]
LAYOUTS: dict[str, tuple[Layout, int, int | None]] = {}


def layout(train: int, val: int | None = None) -> Callable[[Layout], Layout]:
    """A function that writes a data set, and the numbers of pictures it should be taken for."""

    def add(function: Layout) -> Layout:
        LAYOUTS[function.__name__] = function, train, val
        return function

    return add


def pic(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    seed = sum(map(ord, str(path)))
    pixels = np.random.default_rng(seed).integers(0, 255, (40, 50, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def text(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)


def coco(path: Path, names: list[str]) -> None:
    images = [{"id": i, "file_name": x, "height": 40, "width": 50} for i, x in enumerate(names)]
    box = {"category_id": 1, "bbox": [5, 5, 20, 20], "area": 400, "iscrowd": 0}
    boxes = [{"id": i + 1, "image_id": i, **box} for i in range(len(names))]
    content = {"images": images, "annotations": boxes, "categories": [{"id": 1, "name": "a"}]}
    text(path, json.dumps(content))


def voc(path: Path, name: str) -> None:
    text(
        path,
        f"<annotation><filename>{name}</filename><size><width>50</width><height>40</height></size>"
        "<object><name>a</name><bndbox><xmin>5</xmin><ymin>5</ymin><xmax>25</xmax><ymax>25</ymax>"
        "</bndbox></object></annotation>",
    )


def yolo(path: Path) -> None:
    text(path, "0 0.5 0.5 0.4 0.4\n")


SIZES = {"train": 4, "valid": 3, "val": 3, "test": 2, "Train": 4, "Validation": 3}


def each(*parts: str) -> list[tuple[str, str]]:
    """(part, name of a picture without suffix)"""
    return [(part, f"{part}{i}") for part in parts for i in range(SIZES[part])]


@layout(4, 3)
def json_for_each_part_and_folders(root: Path) -> None:
    for part, name in each("train", "val"):
        pic(root / part / f"{name}.jpg")
    for part in ("train", "val"):
        coco(root / f"annotations/instances_{part}.json", [f"{x}.jpg" for _, x in each(part)])


@layout(4, 3)
def roboflow_coco(root: Path) -> None:
    for part, name in each("train", "valid", "test"):
        pic(root / part / f"{name}.jpg")
        coco(root / part / "_annotations.coco.json", [f"{x}.jpg" for _, x in each(part)])


@layout(4, 3)
def roboflow_yolo(root: Path) -> None:
    for part, name in each("train", "valid", "test"):
        pic(root / part / "images" / f"{name}.jpg")
        yolo(root / part / "labels" / f"{name}.txt")
    lists = "".join(
        f"{key}: ../{part}/images\n"
        for key, part in (("train", "train"), ("val", "valid"), ("test", "test"))
    )
    text(root / "data.yaml", f"{lists}nc: 1\nnames: ['a']\n")


@layout(4, 3)
def roboflow_voc(root: Path) -> None:
    for part, name in each("train", "valid", "test"):
        pic(root / part / f"{name}.jpg")
        voc(root / part / f"{name}.xml", f"{name}.jpg")


@layout(4, 3)
def roboflow_csv(root: Path) -> None:
    for part in ("train", "valid", "test"):
        rows = [f"{x}.jpg,50,40,a,5,5,25,25\n" for _, x in each(part)]
        head = "filename,width,height,class,xmin,ymin,xmax,ymax\n"
        text(root / part / "_annotations.csv", head + "".join(rows))
        for _, name in each(part):
            pic(root / part / f"{name}.jpg")


@layout(4, 2)
def only_train_and_test(root: Path) -> None:
    for part, name in each("train", "test"):
        pic(root / part / f"{name}.jpg")
        voc(root / part / f"{name}.xml", f"{name}.jpg")


@layout(4, 2)
def yaml_without_val(root: Path) -> None:
    for part, name in each("train", "test"):
        pic(root / part / "images" / f"{name}.jpg")
        yolo(root / part / "labels" / f"{name}.txt")
    text(root / "data.yaml", "train: train/images\ntest: test/images\nnames: [a]\n")


@layout(4, 2)
def roboflow_yolo_that_lists_a_val_that_is_not_there(root: Path) -> None:
    for part, name in each("train", "test"):
        pic(root / part / "images" / f"{name}.jpg")
        yolo(root / part / "labels" / f"{name}.txt")
    lists = "train: ../train/images\nval: ../valid/images\ntest: ../test/images\n"
    text(root / "data.yaml", f"{lists}nc: 1\nnames: ['a']\n")


@layout(4)
def roboflow_yolo_of_which_only_train_is_there(root: Path) -> None:
    for _, name in each("train"):
        pic(root / "train" / "images" / f"{name}.jpg")
        yolo(root / "train" / "labels" / f"{name}.txt")
    lists = "train: ../train/images\nval: ../valid/images\ntest: ../test/images\n"
    text(root / "data.yaml", f"{lists}nc: 1\nnames: ['a']\n")


@layout(4)
def cvat_coco(root: Path) -> None:
    for _, name in each("train"):
        pic(root / "images" / f"{name}.jpg")
    coco(root / "annotations/instances_default.json", [f"{x}.jpg" for _, x in each("train")])


@layout(4, 3)
def cvat_coco_with_subsets(root: Path) -> None:
    for part, name in each("Train", "Validation"):
        pic(root / "images" / part / f"{name}.jpg")
        coco(root / f"annotations/instances_{part}.json", [f"{x}.jpg" for _, x in each(part)])


@layout(4)
def cvat_voc(root: Path) -> None:
    for _, name in each("train"):
        pic(root / "JPEGImages" / f"{name}.jpg")
        voc(root / "Annotations" / f"{name}.xml", f"{name}.jpg")
    text(root / "ImageSets/Main/default.txt", "".join(f"{x}\n" for _, x in each("train")))
    text(root / "labelmap.txt", "# label:color_rgb:parts:actions\na:0,0,0::\n")


@layout(4, 3)
def voc_with_lists(root: Path) -> None:
    for part, name in each("train", "val"):
        pic(root / "JPEGImages" / f"{name}.jpg")
        voc(root / "Annotations" / f"{name}.xml", f"{name}.jpg")
        text(root / f"ImageSets/Main/{part}.txt", "".join(f"{x}\n" for _, x in each(part)))


@layout(4)
def cvat_yolo(root: Path) -> None:
    for _, name in each("train"):
        pic(root / "obj_train_data" / f"{name}.jpg")
        yolo(root / "obj_train_data" / f"{name}.txt")
    text(root / "obj.names", "a\n")
    text(root / "obj.data", "classes = 1\ntrain = data/train.txt\nnames = data/obj.names\n")
    rows = [f"data/obj_train_data/{x}.jpg\n" for _, x in each("train")]
    text(root / "train.txt", "".join(rows))


@layout(4, 3)
def cvat_yolo_with_subsets(root: Path) -> None:
    for part, name in each("Train", "Validation"):
        pic(root / f"obj_{part}_data" / f"{name}.jpg")
        yolo(root / f"obj_{part}_data" / f"{name}.txt")
        rows = [f"data/obj_{part}_data/{x}.jpg\n" for _, x in each(part)]
        text(root / f"{part}.txt", "".join(rows))
    text(root / "obj.names", "a\n")


@layout(4)
def labelimg_yolo_in_one_folder(root: Path) -> None:
    for _, name in each("train"):
        pic(root / f"{name}.jpg")
        yolo(root / f"{name}.txt")
    text(root / "classes.txt", "a\n")


@layout(4)
def labelimg_yolo_with_its_list_among_the_labels(root: Path) -> None:
    for _, name in each("train"):
        pic(root / "images" / f"{name}.jpg")
        yolo(root / "labels" / f"{name}.txt")
    text(root / "labels" / "classes.txt", "a\n")


@layout(4)
def json_beside_a_folder_of_another_name(root: Path) -> None:
    pic(root / "other" / "x.jpg")
    for _, name in each("train"):
        pic(root / "my Bilder" / f"{name}.jpg")
    coco(root / "boxes.json", [f"{x}.jpg" for _, x in each("train")])


@layout(4)
def csv_beside_a_folder_of_another_name(root: Path) -> None:
    for _, name in each("train"):
        pic(root / "my Bilder" / f"{name}.jpg")
    text(root / "boxes.csv", "".join(f"{x}.jpg,5,5,25,25,a\n" for _, x in each("train")))


@layout(4)
def label_studio_coco(root: Path) -> None:
    for _, name in each("train"):
        pic(root / "images" / f"{name}.jpg")
    coco(root / "result.json", [f"images\\{x}.jpg" for _, x in each("train")])


@layout(4)
def label_studio_yolo(root: Path) -> None:
    for _, name in each("train"):
        pic(root / "images" / f"{name}.jpg")
        yolo(root / "labels" / f"{name}.txt")
    text(root / "classes.txt", "a\n")
    text(root / "notes.json", '{"categories": [{"id": 0, "name": "a"}], "info": {}}')


@layout(4)
def label_studio_voc(root: Path) -> None:
    for _, name in each("train"):
        pic(root / "images" / f"{name}.jpg")
        voc(root / "Annotations" / f"{name}.xml", f"{name}.jpg")


@layout(4)
def annotations_and_images(root: Path) -> None:
    for _, name in each("train"):
        pic(root / "images" / f"{name}.png")
        voc(root / "annotations" / f"{name}.xml", f"{name}.png")


@layout(4, 3)
def yolo_folders_without_a_yaml(root: Path) -> None:
    for part, name in each("train", "val"):
        pic(root / "images" / part / f"{name}.jpg")
        yolo(root / "labels" / part / f"{name}.txt")
    text(root / "classes.txt", "a\n")


@layout(4, 3)
def yolo_parts_without_a_yaml(root: Path) -> None:
    for part, name in each("train", "val"):
        pic(root / part / "images" / f"{name}.jpg")
        yolo(root / part / "labels" / f"{name}.txt")
    text(root / "classes.txt", "a\n")


@layout(4, 3)
def yolo_yaml_of_another_machine(root: Path) -> None:
    for part, name in each("train", "val"):
        pic(root / part / "images" / f"{name}.jpg")
        yolo(root / part / "labels" / f"{name}.txt")
    lists = "".join(f"{x}: /home/you/set/{x}/images\n" for x in ("train", "val"))
    text(root / "mine.yaml", f"path: /home/you/set\n{lists}names: [a]\n")


@layout(4, 2)
def csv_for_train_and_test(root: Path) -> None:
    for part in ("train", "test"):
        text(root / f"{part}.csv", "".join(f"{x}.jpg,5,5,25,25,a\n" for _, x in each(part)))
        for _, name in each(part):
            pic(root / f"{name}.jpg")


@layout(4, 3)
def unpacked_into_a_folder_of_its_own(root: Path) -> None:
    roboflow_coco(root / "My-Dataset-3")


@layout(4, 3)
def vocdevkit(root: Path) -> None:
    voc_with_lists(root / "VOCdevkit" / "VOC2012")


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_folder_is_taken_for_training_and_validation_set(name: str, tmp_path: Path):
    write, num_train, num_val = LAYOUTS[name]
    write(tmp_path)
    train = read_cached(source_of(str(tmp_path), "train"), "")
    assert (len(train), len(train.boxes)) == (num_train, num_train)
    assert has_own_val(str(tmp_path)) == (num_val is not None)
    if num_val is not None:
        val = read_cached(source_of(str(tmp_path), "val"), "")
        assert len(val) == num_val
        assert not set(val.file_names) & set(train.file_names)
