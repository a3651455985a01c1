"""YOLO: forms of data.yaml, places of labels, polygons, and broken rows."""

from __future__ import annotations

import pytest
import yaml

from retinanet_ext.data.formats import Inputs, Source, yolo_subsets
from retinanet_ext.data.formats.yolo import read_yolo
from tests.helpers.four_formats import Picture, write, write_images

BOX = "0 0.5 0.5 0.25 0.5"


@pytest.fixture
def root(tmp_path):
    """a.png with one box, b.png without; 40 x 20 pixels."""
    pictures = [Picture("a.png", 40, 20, [("ant", 15, 5, 25, 15)]), Picture("b.png", 40, 20)]
    write("yolo", tmp_path, pictures, ["ant", "bee"])
    return tmp_path


def read(root, **fields):
    return read_yolo(Source(str(root / "data.yaml"), format="yolo", **fields), Inputs())


def configure(root, **content):
    (root / "data.yaml").write_text(yaml.safe_dump({"names": ["ant", "bee"], **content}))


def label(root, text):
    (root / "labels" / "a.txt").write_text(text)


def test_boxes_are_scaled_by_the_size_of_the_image(root):
    label(root, BOX)
    table = read(root)
    assert table.boxes.tolist() == [[15, 5, 25, 15]]
    assert [record["annotations"] == [] for record in table.records()] == [False, True]


def test_the_bounds_of_a_polygon_are_the_box(root):
    label(root, "1 0.1 0.2 0.9 0.2 0.5 0.8 0.3 0.7")
    table = read(root)
    assert table.boxes.tolist() == [[4, 4, 36, 16]] and table.classes.tolist() == [1]


def test_a_triangle_is_a_polygon(root):
    label(root, "0 0 0 0.5 0 0 0.5")
    assert read(root).boxes.tolist() == [[0, 0, 20, 10]]


def test_ids_of_names_may_have_gaps(root):
    configure(root, train="images", names={7: "bee", 2: "ant"})
    label(root, BOX.replace("0 ", "7 ", 1))
    table = read(root)
    assert (table.class_names, table.classes.tolist()) == (["ant", "bee"], [1])


def test_lists_of_a_yaml_are_told_apart(root):
    write_images(root / "more" / "images", [Picture("c.png", 40, 20)])
    (root / "more" / "labels").mkdir()
    (root / "more" / "labels" / "c.txt").write_text(BOX)
    configure(root, train="images", val=["more/images"])
    assert yolo_subsets(str(root / "data.yaml")) == ["train", "val"]
    assert [len(read(root, subset=name)) for name in ("train", "val")] == [2, 1]
    for subset in ("", "test"):
        with pytest.raises(ValueError, match=r"lists train, val, and SUBSET is"):
            read(root, subset=subset)


@pytest.mark.parametrize(
    "content",
    [
        {"train": "images"},
        {"train": "./images/"},
        {"train": "../images"},  # Roboflow
        {"path": "..", "train": "data/images"},
        {"path": "/not/here", "train": "images"},
        {"train": "list.txt"},
        {"train": ["list.txt"]},
    ],
)
def test_images_are_found_in_the_usual_forms(root, content):
    (root / "list.txt").write_text("./images/a.png\n./images/b.png\n")
    if content.get("path") == "..":
        (root / "data").symlink_to(root)
        content = {"path": "data", "train": "images"}
    configure(root, **content)
    assert len(read(root)) == 2 and len(read(root).boxes) == 1


def test_labels_may_lie_beside_their_images(root):
    (root / "labels" / "a.txt").rename(root / "images" / "a.txt")
    assert len(read(root).boxes) == 1


def test_a_path_with_images_in_it_twice_has_its_last_one_replaced(tmp_path):
    root = tmp_path / "images" / "set"
    pictures = [Picture("a.png", 40, 20, [("ant", 15, 5, 25, 15)])]
    write("yolo", root, pictures, ["ant"])
    assert len(read(root).boxes) == 1


def test_images_given_by_hand_win(root):
    configure(root, train="nowhere")
    assert len(read(root, images=str(root / "images"))) == 2


@pytest.mark.parametrize(
    "text, words",
    [
        (f"{BOX}\n2 0.5 0.5 0.1 0.1", r"a\.txt, line 2: class is '2', but .* knows 0, 1"),
        ("ant 0.5 0.5 0.1 0.1", r"line 1: class is 'ant'"),
        ("0 0.5 0.5 0.1", r"line 1: has 3 numbers"),
        ("0 0.5 0.5 0.1 0.1 0.9", r"line 1: has 5 numbers"),
        ("0 20 10 8 8", r"line 1: 20\.0 is not within 0 and 1; .*shares"),
        ("0 0.5 0.5 nan 0.1", r"line 1: coordinate is 'nan'"),
        ("0 0.5 0.5 x 0.1", r"line 1: coordinate is 'x'"),
    ],
)
def test_errors_name_file_line_and_fault(root, text, words):
    label(root, text)
    with pytest.raises(ValueError, match=words):
        read(root)


@pytest.mark.parametrize(
    "text, words",
    [
        ("names: [a", "not safe yaml"),
        ("names: !!python/object/apply:os.getcwd []", "not safe yaml"),
        ("train: images", "no 'names'"),
        ("names: []\ntrain: images", "lists no classes"),
        ("names: [a, a]\ntrain: images", "class 1 is 'a', which is empty or there before"),
        ("names: [a]\nnc: 2\ntrain: images", "nc is 2, but there are 1 names"),
        ("names: [a]", "lists of nothing"),
    ],
)
def test_a_broken_yaml_is_named(root, text, words):
    (root / "data.yaml").write_text(text)
    with pytest.raises(ValueError, match=rf"data\.yaml.*{words}"):
        read(root)


def test_missing_folders_images_and_labels_are_named(root):
    configure(root, train="pictures")
    with pytest.raises(FileNotFoundError, match=r"data\.yaml: 'pictures' is none of .*pictures"):
        read(root)
    configure(root, train="labels")
    with pytest.raises(FileNotFoundError, match=r"no image in .*labels"):
        read(root)
    configure(root, train="images")
    (root / "labels" / "a.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"none of the 2 images.*labels/a\.txt"):
        read(root)
