"""Formats are found out by what is there; nothing and several things are errors."""

from __future__ import annotations

import os

import pytest

from retinanet_ext.data.datasets.command_line import split_flag
from retinanet_ext.data.formats import Source, detect, read_cached
from tests.helpers.coco_file import coco_file
from tests.helpers.four_formats import FORMATS, Picture, some_pictures, write, write_images

NAMES = ["ant", "bee", "cat"]


@pytest.mark.parametrize("kind", FORMATS)
def test_files_and_folders_are_recognised(kind, tmp_path):
    flag = write(kind, tmp_path, some_pictures(1), NAMES)
    found = detect(Source(split_flag(flag)[0]))
    assert found.format == kind
    assert detect(Source(str(tmp_path))) == found  # a folder with one of its kind


@pytest.mark.parametrize(
    "path, target",
    [
        ("Annotations", "Annotations"),
        ("Annotations/p00.xml", "Annotations"),
        ("ImageSets/Main/a.txt", "ImageSets/Main/a.txt"),
    ],
)
def test_voc_may_be_named_in_several_ways(path, target, tmp_path):
    write("voc", tmp_path, some_pictures(1), NAMES)
    (tmp_path / "ImageSets" / "Main").mkdir(parents=True)
    (tmp_path / "ImageSets" / "Main" / "a.txt").write_text("p00\n")
    found = detect(Source(str(tmp_path / path)))
    assert (found.format, found.annotations) == ("voc", str(tmp_path / target))


def test_an_unknown_format_says_what_was_looked_for(tmp_path):
    (tmp_path / "notes.md").write_text("")
    for path in (tmp_path, tmp_path / "notes.md"):
        with pytest.raises(ValueError, match=r"no known format.*json.*xml.*data\.yaml.*csv"):
            detect(Source(str(path)))


def test_two_formats_in_a_folder_are_ambiguous_unless_one_is_asked_for(tmp_path):
    (tmp_path / "a.csv").write_text("")
    (tmp_path / "b.json").write_text("")
    with pytest.raises(ValueError, match=r"b\.json \(coco\).*a\.csv \(csv\).*name one"):
        detect(Source(str(tmp_path)))
    assert detect(Source(str(tmp_path), format="csv")).annotations == str(tmp_path / "a.csv")


@pytest.mark.parametrize(
    "source, error, words",
    [
        (Source("/no/such.json"), FileNotFoundError, "/no/such.json do not exist"),
        (Source("/", "/no/folder"), FileNotFoundError, "no folder /no/folder"),
        (Source("/", format="cocoo"), ValueError, "'cocoo'. Did you mean 'coco'"),
    ],
)
def test_what_is_not_there_is_named(source, error, words):
    with pytest.raises(error, match=words):
        detect(source)


def layout(root, kind, images, labels, *names):
    """Pictures in one folder with annotations in another, or a json of the part."""
    for name in names:
        write_images(root / images, [Picture(f"{name}.png", 40, 30)])
        (root / labels).mkdir(parents=True, exist_ok=True)
        if kind == "voc":
            (root / labels / f"{name}.xml").write_text(
                f"<annotation><filename>{name}.png</filename></annotation>"
            )
        elif kind == "yolo":
            (root / labels / f"{name}.txt").write_text("0 .5 .5 .2 .2\n")
    if kind == "coco":
        sizes = {f"{name}.png": (40, 30) for name in names}
        coco_file(root / labels / f"{labels.replace('/', '_')}.json", sizes, [], {1: "ant"})


def read_part(root, part):
    table = read_cached(detect(Source(str(root), subset=part)), "")
    return sorted(os.path.splitext(os.path.relpath(x, root))[0] for x in table.file_names)


@pytest.mark.parametrize("kind", ["voc", "coco"])
@pytest.mark.parametrize("base", ["", "images/"])
@pytest.mark.parametrize("val", ["val", "valid", "Validation", "test"])
def test_folders_of_the_parts_are_a_dataset(kind, base, val, tmp_path):
    layout(tmp_path, kind, f"{base}train", f"{base}train", "a", "b")
    layout(tmp_path, kind, f"{base}{val}", f"{base}{val}", "c")
    assert read_part(tmp_path, "train") == [f"{base}train/a", f"{base}train/b"]
    assert read_part(tmp_path, "val") == [f"{base}{val}/c"]


@pytest.mark.parametrize("folder", ["annotations", "Annotations"])
@pytest.mark.parametrize("images", ["images", "JPEGImages", "Images"])
def test_annotations_and_images_are_voc_where_the_annotations_are_xml(folder, images, tmp_path):
    layout(tmp_path, "voc", images, folder, "a", "b")
    assert detect(Source(str(tmp_path))).format == "voc"
    assert read_part(tmp_path, "train") == [f"{images}/a", f"{images}/b"]


def test_of_several_files_the_one_that_is_named_after_the_part_is_taken(tmp_path, caplog):
    for part in ("train2017", "val2017"):
        path = tmp_path / "annotations" / f"instances_{part}.json"
        path.parent.mkdir(exist_ok=True)
        write_images(tmp_path / part, [Picture(f"{part}.png", 40, 30)])
        coco_file(path, {f"{part}.png": (40, 30)}, [], {1: "ant"})
    assert read_part(tmp_path, "train") == ["train2017/train2017"]
    assert read_part(tmp_path, "val") == ["val2017/val2017"]
    with pytest.raises(ValueError, match=r"may be read as .*instances_train2017.*name one"):
        detect(Source(str(tmp_path)))  # of no part


@pytest.mark.parametrize("names", ["classes.txt", "obj.names"])
def test_labels_with_a_list_of_class_names_are_yolo(names, tmp_path):
    layout(tmp_path, "yolo", "images", "labels", "a", "b")
    (tmp_path / names).write_text("\ufeffant\nbee\n", encoding="utf-8")
    (tmp_path / "notes.json").write_text('{"categories": [], "info": {}}')  # of Label Studio
    assert read_part(tmp_path, "train") == ["images/a", "images/b"]
    assert read_cached(detect(Source(str(tmp_path))), "").class_names == ["ant", "bee"]


def test_labels_without_class_names_are_told_what_is_missing(tmp_path):
    layout(tmp_path, "yolo", "images", "labels", "a")
    with pytest.raises(ValueError, match=r"has labels/ as YOLO does: no file names the classes"):
        detect(Source(str(tmp_path)))


def test_darknets_folder_is_read_by_its_lists(tmp_path):
    layout(tmp_path, "yolo", "obj_train_data", "obj_train_data", "a", "b")
    (tmp_path / "obj.names").write_text("ant\n")
    (tmp_path / "train.txt").write_text("data/obj_train_data/b.png\n")
    assert read_part(tmp_path, "train") == ["obj_train_data/b"]


def test_a_data_yaml_may_have_another_name(tmp_path):
    layout(tmp_path, "yolo", "images", "labels", "a")
    (tmp_path / "config.yaml").write_text("VERSION: 2\n")
    (tmp_path / "cells.yaml").write_text("train: images\nnames: [ant]\n")
    assert detect(Source(str(tmp_path))).annotations == str(tmp_path / "cells.yaml")


@pytest.mark.parametrize("name", ["a.json", "a.csv", "data.yaml", "ImageSets/Main/a.txt"])
def test_no_device_is_read(name, tmp_path):
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).symlink_to("/dev/zero")
    with pytest.raises(ValueError, match="is a device or pipe"):
        detect(Source(str(tmp_path / name)))
