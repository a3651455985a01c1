"""Files that can be read in two ways, or hold more than is looked for: refused in one sentence.

Each is of a kind that the fuzzer of tests/data/test_fuzz_annotations.py found read wrong.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from retinanet_ext.data.doctor import from_coco_json
from retinanet_ext.data.formats import BoxTable, Source, detect, read_cached
from retinanet_ext.data.formats.text import parse_number, parse_size
from retinanet_ext.errors import InputError, UserError
from tests.helpers.four_formats import FORMATS, Picture, write, write_images

NAMES = ["ant", "bee"]


def dataset(kind: str, root: Path) -> str:
    """Two pictures of 100 x 80 and of 90 x 80 with one box each."""
    pictures = [
        Picture("p0.png", 100, 80, [("ant", 10, 20, 50, 60)]),
        Picture("p1.png", 90, 80, [("bee", 5, 6, 45, 56)]),
    ]
    return write(kind, root, pictures, NAMES)


def read(spec: str) -> BoxTable:
    annotations, _, images = spec.partition(":")
    source = detect(Source(annotations, images))
    return read_cached(source, "")


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def file_of(kind: str, root: Path) -> Path:
    """The annotations of the first picture."""
    names = {"coco": "boxes.json", "csv": "boxes.csv", "voc": "Annotations/p0.xml"}
    return root / names.get(kind, "labels/p0.txt")


@pytest.mark.parametrize("kind", FORMATS)
def test_an_underscore_is_in_no_number(tmp_path: Path, kind: str):
    spec = dataset(kind, tmp_path)
    old, new = {"yolo": ("0.3 ", "0.3_0 "), "coco": ("[10, 20", '["1_0", 20')}.get(
        kind, ("20", "2_0") if kind == "csv" else (">21<", ">2_1<")
    )
    edit(file_of(kind, tmp_path), old, new)
    with pytest.raises(InputError, match=r"is '[\d.]+_\d', but must be a number") as error:
        read(spec)
    assert file_of(kind, tmp_path).name in str(error.value)


def test_a_long_value_is_shortened_in_messages():
    with pytest.raises(InputError) as error:
        parse_number("x" * 10_000, "a.csv, line 1", "x1")
    assert len(str(error.value)) < 200 and str(error.value).startswith("a.csv, line 1: x1 is 'xxx")


@pytest.mark.parametrize("size", [60.5, 2**31, 1e300, "1e400", True, float("nan")])
def test_a_size_is_a_whole_number_of_pixels(size: Any):
    with pytest.raises(InputError, match=r"a.xml: width is .* must be a"):
        parse_size(size, "a.xml", "width")
    assert [parse_size(x, "", "") for x in (60, "60", " 60.0 ", 60.0)] == [60] * 4


@pytest.mark.parametrize(
    ("key", "value"),
    [("bbox", "[1, 2, 3, 4]"), ("annotations", "[]"), ("name", '"dog"'), ("file_name", '"p1.png"')],
)
def test_a_key_that_stands_twice_in_a_json(tmp_path: Path, key: str, value: str):
    spec = dataset("coco", tmp_path)
    path = file_of("coco", tmp_path)
    edit(path, f'"{key}":', f'"{key}": {value}, "{key}":')
    for reader in (lambda: read(spec), lambda: from_coco_json(path, tmp_path / "pictures")):
        with pytest.raises(InputError, match=rf"boxes\.json: an object.* the key '{key}' twice"):
            reader()


def test_a_json_that_is_nested_too_deeply_for_check_data(tmp_path: Path):
    path = tmp_path / "a.json"
    path.write_text("[" * 100_000)
    with pytest.raises(InputError, match=r"a\.json is not json: .*nested too deeply"):
        from_coco_json(path)


@pytest.mark.parametrize(
    ("where", "changes", "words"),
    [
        ("annotations", {"bbox": [True, 2, 3, 4]}, "annotation 1: bbox is True"),
        ("annotations", {"iscrowd": []}, r"annotation 1: iscrowd is \[\]"),
        ("annotations", {"ignore": {}}, "annotation 1: ignore is {}"),
        ("images", {"width": 2**63}, r"entry 0 .*width is 9223372036854775808"),
        ("images", {"height": 80.5}, r"entry 0 .*height is 80\.5"),
        ("images", {"file_name": "a\nb.png"}, r"file_name is 'a\\nb.png'"),
        ("images", {"file_name": "p1.png"}, "ids 1 and 2 both name .*100 x 80 and 90 x 80"),
    ],
)
def test_a_coco_json(tmp_path: Path, where: str, changes: dict[str, Any], words: str):
    spec = dataset("coco", tmp_path)
    path = file_of("coco", tmp_path)
    content = json.loads(path.read_text())
    content[where][0].update(changes)
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match=words) as error:
        read(spec)
    assert "boxes.json" in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("<xmin>", "<xmin>7</xmin><xmin>", "object 1: has <xmin> twice"),
        ("<bndbox>", "<bndbox></bndbox><bndbox>", "object 1: has <bndbox> twice"),
        ("<name>", "<name>bee</name><name>", "object 1: has <name> twice"),
        ("<object>", "<objects><object>", "1 <object> are not where VOC has them"),
        ("<object>", "<object xmlns='http://x'>", "1 <object> are not where"),
        ("<bndbox>", "<box/><bndbox xmlns='http://x'>", "1 <bndbox> are not where"),
    ],
)
def test_a_voc_xml(tmp_path: Path, old: str, new: str, words: str):
    spec = dataset("voc", tmp_path)
    edit(file_of("voc", tmp_path), old, new)
    if "objects" in new:
        edit(file_of("voc", tmp_path), "</object>", "</object></objects>")
    with pytest.raises(InputError, match=rf"p0\.xml.*{words}"):
        read(spec)


def test_parts_of_a_voc_object_are_not_objects(tmp_path: Path):
    spec = dataset("voc", tmp_path)
    part = "<part><name>head</name><bndbox><xmin>1</xmin></bndbox></part>"
    edit(file_of("voc", tmp_path), "</object>", f"{part}{part}</object>")
    assert len(read(spec).boxes) == 2


@pytest.mark.parametrize("kind", ["folder", "link"])
def test_labels_that_are_no_file_are_not_no_objects(tmp_path: Path, kind: str):
    spec = dataset("yolo", tmp_path)
    path = file_of("yolo", tmp_path)
    path.unlink()
    path.mkdir() if kind == "folder" else path.symlink_to(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"p0\.txt should be the labels of .*p0\.png"):
        read(spec)


def test_two_pictures_cannot_share_labels(tmp_path: Path):
    spec = dataset("yolo", tmp_path)
    write_images(tmp_path / "images", [Picture("p0.jpg", 9, 9)])
    with pytest.raises(
        InputError, match=r"p0\.txt are the labels of two pictures, .*jpg and .*png"
    ):
        read(spec)


@pytest.mark.parametrize("number", ["9" * 5000, "-1", "1_0", "\u00b2"])
def test_the_number_of_a_class(tmp_path: Path, number: str):
    spec = dataset("yolo", tmp_path)
    edit(file_of("yolo", tmp_path), "0 ", f"{number} ")
    with pytest.raises(InputError, match=r"p0\.txt, line 1: class is '.{1,25}', but"):
        read(spec)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("names: [ant, bee]\nnames: [bee, ant]", "found the key 'names' twice"),
        ("names:\n  0: ant\n  1: bee\n  1: cat", "found the key '1' twice"),
    ],
)
def test_a_key_that_stands_twice_in_a_data_yaml(tmp_path: Path, text: str, words: str):
    spec = dataset("yolo", tmp_path)
    (tmp_path / "data.yaml").write_text(f"train: images\n{text}\n")
    with pytest.raises(InputError, match=rf"data\.yaml .*{words}"):
        read(spec)


def test_names_of_classes_are_kept_as_they_are_written(tmp_path: Path):
    spec = dataset("yolo", tmp_path)
    names = ["010", "1_0", "1:30", "2020-01-01", "0x1f", "12"]
    (tmp_path / "data.yaml").write_text(f"train: images\nnames: [{', '.join(names)}]\n")
    assert read(spec).class_names == names


@pytest.mark.parametrize("value", [[None], [[]], [True], [""], {"a": 1}])
def test_a_list_of_images_that_names_none(tmp_path: Path, value: Any):
    spec = dataset("yolo", tmp_path)
    (tmp_path / "data.yaml").write_text(yaml.safe_dump({"train": value, "names": NAMES}))
    with pytest.raises(InputError, match=r"data\.yaml: 'train' holds .* must be a folder"):
        read(spec)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("p0.png,10,", "p0.png,10,5,", "line 1: has 7 fields, but 6 columns"),
        ("p0.png,", "p0.png,7,", "line 1: has 7 fields, but 6 columns"),
        (",10,20,50,60,", ";10;20;50;60;", "line 1: has fields between ';'"),
        ("ant", "a\1nt", r"line 1: class 'a\\x01nt' holds a control character"),
        ("ant", "a\0nt", "line 1: holds a zero byte"),
        (
            "pictures/p0",
            "path,x1,y1,x2,y2,class,x1\npictures/p0",
            "line 1: names the column x1 twi",
        ),
    ],
)
def test_a_csv(tmp_path: Path, old: str, new: str, words: str):
    spec = dataset("csv", tmp_path)
    edit(file_of("csv", tmp_path), old, new)
    with pytest.raises(InputError, match=rf"boxes\.csv, {words}"):
        read(spec)


def test_a_name_that_no_file_can_have_is_a_missing_picture(tmp_path: Path):
    spec = dataset("csv", tmp_path)
    long = "a" * 300 + ".png"
    edit(file_of("csv", tmp_path), "pictures/p0.png", long)
    try:
        reason = next(iter(read(spec).bad.values()))
    except UserError as error:
        reason = str(error)
    assert "boxes.csv, line 1" in reason
