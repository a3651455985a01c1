"""Pictures are found where they evidently are: other machines, other systems, other folders."""

from __future__ import annotations

import logging
import os

import pytest
from PIL import Image

from retinanet_ext.data.formats import Inputs, Source
from retinanet_ext.data.formats.cache import READERS
from retinanet_ext.data.formats.places import Place, find_place, subfolder, tail
from tests.helpers.coco_file import coco_file


def pictures(folder, *names):
    for i, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40 + i, 30), "gray").save(folder / name)


@pytest.mark.parametrize(
    "name, dropped, expected",
    [
        ("a/b.jpg", 0, "a/b.jpg"),
        ("../a/b.jpg", 0, "../a/b.jpg"),
        ("..\\a\\b.jpg", 1, "a/b.jpg"),
        ("C:\\x\\a\\b.jpg", 3, "a/b.jpg"),
        ("/x/a/b.jpg", 9, "b.jpg"),
    ],
)
def test_tails_of_paths(name, dropped, expected):
    assert tail(name, dropped) == expected


def test_the_fewest_parts_are_dropped_and_two_pictures_stay_two(tmp_path):
    pictures(tmp_path, "x/a.png", "a.png")
    assert find_place(["x/a.png"], [tmp_path]) == Place(str(tmp_path), 0)
    assert find_place(["/there/x/a.png"], [tmp_path]) == Place(str(tmp_path), 2)
    assert find_place(["/there/x/b.png"], [tmp_path]) is None
    assert find_place(["p/a.png", "q/a.png"], [tmp_path]) is None  # which of them would it be?
    assert find_place([], [tmp_path]) is None


def test_folders_are_found_in_any_case(tmp_path):
    (tmp_path / "annotations").mkdir()
    assert subfolder(tmp_path, "Annotations") == tmp_path / "annotations"
    assert subfolder(tmp_path / "no", "a") is None


def read(kind, path, **fields):
    return READERS[kind](Source(annotations=str(path), **fields), Inputs())


def found(table, root):
    return [os.path.relpath(name, root) for name in table.file_names]


ELSEWHERE = ["C:\\data\\pictures\\{}", "/home/bob/pictures/{}", "../pictures/{}", "pictures\\{}"]


@pytest.mark.parametrize("written", [*ELSEWHERE, "D:/deep/er/{}"])
@pytest.mark.parametrize("images", [False, True])
def test_a_json_of_another_machine(written, images, tmp_path, caplog):
    pictures(tmp_path / "pictures", "a.png", "b.png")
    names = {written.format(x): (40, 30) for x in ("a.png", "b.png")}
    path = coco_file(tmp_path / "train.json", names, [], {1: "ant"})
    fields = {"images": str(tmp_path / "pictures")} if images or "deep" in written else {}
    with caplog.at_level(logging.WARNING):
        table = read("coco", path, **fields)
    assert found(table, tmp_path) == ["pictures/a.png", "pictures/b.png"]
    if written[0] in "CD/":
        shown = written.format("a.png").replace("\\", "/")
        assert f"not where it says ({shown})" in caplog.text


def test_file_names_that_repeat_the_folder_of_the_images(tmp_path):
    pictures(tmp_path / "images", "a.png")
    path = coco_file(tmp_path / "train.json", {"images/a.png": (40, 30)}, [], {1: "ant"})
    table = read("coco", path, images=str(tmp_path / "images"))
    assert found(table, tmp_path) == ["images/a.png"]


@pytest.mark.parametrize("written", ELSEWHERE)
def test_rows_of_another_machine(written, tmp_path):
    pictures(tmp_path / "pictures", "a.png", "b c.png")
    rows = "".join(f"{written.format(x)},1,2,11,12,ant\n" for x in ("a.png", "b c.png"))
    (tmp_path / "rows.csv").write_text(rows)
    assert found(read("csv", tmp_path / "rows.csv"), tmp_path) == [
        "pictures/a.png",
        "pictures/b c.png",
    ]


YAMLS = {
    "windows": "path: C:\\Users\\bob\\cells\ntrain: images\\train\nval: images\\val\n",
    "absolute": "train: /content/cells/images/train\nval: /content/cells/images/val\n",
    "cvat": "path: ./\ntrain: data/images/train\nval: data/images/val\n",
    "roboflow": "train: ../images/train\nval: ../images/valid\n",
    "valid": "path: ../datasets/cells\ntrain: images/train\nvalid: images/validation\n",
    "lists": "path: .\ntrain: train.txt\nval: val.txt\n",
    "lists elsewhere": "path: /kaggle/input\ntrain: /kaggle/input/train.txt\nval: C:\\x\\val.txt\n",
}


@pytest.mark.parametrize("kind", YAMLS)
def test_a_data_yaml_of_another_machine(kind, tmp_path, caplog):
    pictures(tmp_path / "images", "train/a b.png", "val/c.png")
    for name in ("train/a b", "val/c"):
        label = tmp_path / "labels" / f"{name}.txt"
        label.parent.mkdir(parents=True, exist_ok=True)
        label.write_text("0 .5 .5 .2 .2\n")
    # A byte order mark, both kinds of line ends, spaces in names.
    (tmp_path / "train.txt").write_bytes("\ufeffdata/images/train/a b.png\r\n".encode())
    (tmp_path / "val.txt").write_text("\n.\\images\\val\\c.png\n")
    path = tmp_path / "data.yaml"
    path.write_text(f"\ufeff{YAMLS[kind]}names: [ant]\n", encoding="utf-8")
    with caplog.at_level(logging.WARNING):
        assert found(read("yolo", path, subset="train"), tmp_path) == ["images/train/a b.png"]
        assert found(read("yolo", path, subset="val"), tmp_path) == ["images/val/c.png"]
    assert caplog.text


def test_what_is_nowhere_is_named_with_what_was_looked_for(tmp_path):
    pictures(tmp_path, "images/a.png")
    path = tmp_path / "data.yaml"
    path.write_text("train: /content/pictures\nnames: [ant]\n")
    words = r"'/content/pictures' is none of /content/pictures.*as .*data\.yaml:IMAGE_DIR"
    with pytest.raises(FileNotFoundError, match=words):
        read("yolo", path, subset="train")
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "a.txt").write_text("0 .5 .5 .2 .2\n")
    table = read("yolo", path, subset="train", images=str(tmp_path / "images"))  # as it says
    assert found(table, tmp_path) == ["images/a.png"]
    (tmp_path / "list.txt").write_text("/content/x.png\n")
    path.write_text("train: list.txt\nnames: [ant]\n")
    with pytest.raises(FileNotFoundError, match=r"list\.txt: none of its 1 images .*IMAGE_DIR"):
        read("yolo", path, subset="train")
