"""Values that are not of the type they seem, and labels of the wrong picture: right or refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from retinanet_ext.data.doctor import from_coco_json
from retinanet_ext.data.formats import BoxTable, Source, detect, read_cached
from retinanet_ext.errors import InputError
from tests.helpers.four_formats import Picture, write, write_images

NAMES = ["ant", "bee"]


def pictures() -> list[Picture]:
    return [
        Picture("p0.png", 100, 80, [("ant", 10, 20, 50, 60)]),
        Picture("p1.png", 100, 80, [("bee", 5, 6, 45, 56)]),
    ]


def read(spec: str, **more: Any) -> BoxTable:
    annotations, _, images = spec.partition(":")
    return read_cached(detect(Source(annotations, images, **more)), "")


def coco(root: Path, **changes: Any) -> str:
    """The pictures as COCO, with fields of the first entry of a list changed."""
    spec = write("coco", root, pictures(), NAMES)
    path = Path(spec.partition(":")[0])
    content = json.loads(path.read_text())
    for where, fields in changes.items():
        content[where][0].update(fields)
    path.write_text(json.dumps(content))
    return spec


@pytest.mark.parametrize("value", ["0", 0, False, None, "false", "no", "", "0.0"])
@pytest.mark.parametrize("field", ["iscrowd", "ignore"])
def test_a_flag_that_says_no(tmp_path: Path, field, value):
    assert not read(coco(tmp_path, annotations={field: value})).crowd.any()


@pytest.mark.parametrize("value", ["1", 1, True, "True", "yes", 1.0])
def test_a_flag_that_says_yes(tmp_path: Path, value):
    table = read(coco(tmp_path, annotations={"iscrowd": value}))
    assert table.crowd.tolist() == [True, False]


@pytest.mark.parametrize("value", [[0], "perhaps", 2, {"a": 1}])
def test_a_flag_that_says_neither(tmp_path: Path, value):
    with pytest.raises(InputError, match=r"boxes.json, annotation 1: iscrowd is .* 0 or 1"):
        read(coco(tmp_path, annotations={"iscrowd": value}))


@pytest.mark.parametrize(("word", "crowd"), [("0", 0), ("no", 0), ("1", 1), ("Yes", 1), ("", 0)])
def test_difficult_in_words(tmp_path: Path, word, crowd):
    root = write("voc", tmp_path, pictures(), NAMES)
    xml = tmp_path / "Annotations" / "p0.xml"
    xml.write_text(xml.read_text().replace("<difficult>0", f"<difficult>{word}"))
    assert read(root).crowd.tolist() == [bool(crowd), False]
    xml.write_text(xml.read_text().replace(f"<difficult>{word}<", "<difficult>hardly<"))
    with pytest.raises(InputError, match=r"p0.xml, object 1: difficult is 'hardly'"):
        read(root)


def test_texts_for_numbers_count_and_the_file_is_no_ground_truth_itself(tmp_path: Path):
    spec = coco(
        tmp_path,
        images={"height": "80.0", "width": "100"},
        annotations={"bbox": ["10", "20", "40", "40"]},
    )
    table = read(spec)
    assert table.boxes[0].tolist() == [10, 20, 50, 60] and table.sizes[0].tolist() == [80, 100]
    assert table.category_ids == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"images": {"file_name": None}}, "entry 0 of 'images': file_name is None"),
        ({"images": {"file_name": ["a"]}}, r"file_name is \['a'\]"),
        ({"images": {"id": [1]}}, r"entry 0 of 'images': id is \[1\]"),
        ({"images": {"id": None}}, "id is None"),
        ({"images": {"height": [80]}}, r"entry 0 of 'images' \(p0.png\): height is \[80\]"),
        ({"images": {"height": "tall"}}, "height is 'tall'"),
        ({"annotations": {"category_id": [2]}}, r"annotation 1: category_id is \[2\]"),
        ({"annotations": {"category_id": True}}, "annotation 1: category_id is True"),
        ({"annotations": {"image_id": {}}}, "annotation 1: image_id is {}"),
        ({"annotations": {"bbox": "1 2 3 4"}}, "annotation 1: bbox is '1 2 3 4'"),
        ({"annotations": {"bbox": [1, 2, None, 4]}}, "annotation 1: bbox is None"),
        ({"categories": {"id": "5"}}, "write all as numbers or all as texts"),
        ({"categories": {"id": None}}, "entry 0 of 'categories': id is None"),
        ({"categories": {"id": 2}}, "id 2 is there twice"),
        ({"categories": {"name": None}}, "name: is None"),
        ({"categories": {"name": ["ant"]}}, r"name: is \['ant'\]"),
        ({"categories": {"name": "ant"}}, "'ant'"),
    ],
)
def test_types_in_a_coco_json(tmp_path: Path, changes, words):
    with pytest.raises(InputError, match=words) as error:
        read(coco(tmp_path, **changes))
    assert "boxes.json" in str(error.value)


def test_ids_of_images_as_texts_on_one_side(tmp_path: Path):
    spec = coco(tmp_path)
    path = Path(spec.partition(":")[0])
    content = json.loads(path.read_text())
    for row in content["annotations"]:
        row["image_id"] = str(row["image_id"])
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"no annotation belongs to an image.*image_id '1'.*id 1"):
        read(spec)


def test_odd_ids_that_are_right_are_numbered_anew(tmp_path: Path):
    spec = coco(tmp_path)
    path = Path(spec.partition(":")[0])
    content = json.loads(path.read_text())
    for row in (*content["annotations"], *content["images"]):
        key = "image_id" if "image_id" in row else "id"
        row[key] += 2**70
    content["annotations"][0]["id"] = ["a"]
    path.write_text(json.dumps(content))
    table = read(spec)
    assert table.image_ids.tolist() == [1, 2] and table.category_ids == []


def test_a_category_without_annotations_and_with_the_name_of_another_goes(tmp_path: Path, caplog):
    spec = coco(tmp_path)
    path = Path(spec.partition(":")[0])
    content = json.loads(path.read_text())
    content["categories"].append({"id": 0, "name": "ant", "supercategory": "none"})
    path.write_text(json.dumps(content))
    assert read(spec).class_names == NAMES
    assert "left out: ids 0" in caplog.text


def roboflow(path: Path, parent: str) -> dict:
    """The json with a category 0 that all others have as their supercategory."""
    content = json.loads(path.read_text())
    rows = [{**x, "supercategory": parent} for x in content["categories"]]
    content["categories"] = [{"id": 0, "name": parent, "supercategory": "none"}, *rows]
    path.write_text(json.dumps(content))
    return content


def test_a_category_above_all_others_is_no_class(tmp_path: Path, caplog):
    spec = coco(tmp_path)
    path = Path(spec.partition(":")[0])
    roboflow(path, "insects")
    assert read(spec).class_names == NAMES and from_coco_json(path).class_names == NAMES
    assert "left out: ids 0 (insects)" in caplog.text


def test_a_category_above_all_others_with_objects_is_one(tmp_path: Path):
    spec = coco(tmp_path)
    path = Path(spec.partition(":")[0])
    content = roboflow(path, "insects")
    content["annotations"][0]["category_id"] = 0
    path.write_text(json.dumps(content))
    assert read(spec).class_names == ["insects", *NAMES]
    assert from_coco_json(path).class_names == ["insects", *NAMES]


def test_a_class_without_objects_above_some_of_the_others_stays(tmp_path: Path):
    spec = coco(tmp_path)
    path = Path(spec.partition(":")[0])
    content = roboflow(path, "insects")
    content["categories"][-1]["supercategory"] = "none"
    path.write_text(json.dumps(content))
    assert read(spec).class_names == ["insects", *NAMES]


def test_a_picture_that_is_listed_twice_is_one_picture(tmp_path: Path, caplog):
    spec = coco(tmp_path)
    path = Path(spec.partition(":")[0])
    content = json.loads(path.read_text())
    content["images"].append({**content["images"][0], "id": 9})
    content["annotations"].append({**content["annotations"][0], "id": 9, "image_id": 9})
    path.write_text(json.dumps(content))
    table = read(spec)
    assert len(table) == 2 and table.starts.tolist() == [0, 2, 3] and table.category_ids == []
    assert "1 pictures are listed twice, first p0.png with image ids 1 and 9" in caplog.text


def yolo(root: Path, lines: str, **changes: Any) -> str:
    write("yolo", root, pictures(), NAMES)
    (root / "labels" / "p0.txt").write_text(lines)
    content = yaml.safe_load((root / "data.yaml").read_text())
    (root / "data.yaml").write_text(yaml.safe_dump({**content, **changes}))
    return str(root)


@pytest.mark.parametrize(("shape", "keypoints"), [([2, 2], ".1 .2 .9 .8"), ([1, 3], ".1 .2 2")])
def test_keypoints_of_poses_are_no_polygon(tmp_path: Path, shape, keypoints):
    spec = yolo(tmp_path, f"0 .3 .5 .4 .5 {keypoints}\n", kpt_shape=shape)
    assert read(spec, subset="train").boxes[0].tolist() == [10, 20, 50, 60]
    with pytest.raises(InputError, match=r"p0.txt, line 1: has 9 numbers .* kpt_shape"):
        read(yolo(tmp_path / "more", "0 .3 .5 .4 .5 1 1 1 1 1\n", kpt_shape=shape), subset="train")


@pytest.mark.parametrize("shape", [17, [17], ["a", 3], [17, 5], [0, 3]])
def test_a_kpt_shape_that_is_none(tmp_path: Path, shape):
    with pytest.raises(InputError, match=r"data.yaml: kpt_shape is .* \[number of keypoints"):
        read(yolo(tmp_path, "0 .3 .5 .4 .5\n", kpt_shape=shape), subset="train")


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["ant", False], "class 1: is False, which is how yaml reads"),
        (["ant", None], "class 1: is None"),
        (["ant", ["bee"]], r"class 1: is \['bee'\]"),
        ({0: "ant", "b": "bee"}, "number of a class is 'b'"),
        ({0: "ant", 1.5: "bee"}, "1.5 is no number of a class"),
        ({0: "ant", "0": "bee"}, "'0' is no number of a class from 0, or is there twice"),
        ({0: "ant", True: "bee"}, "number of a class is True"),
    ],
)
def test_names_that_yaml_reads_as_something_else(tmp_path: Path, names, words):
    with pytest.raises(InputError, match=f"data.yaml, names.*{words}"):
        read(yolo(tmp_path, "0 .3 .5 .4 .5\n", names=names), subset="train")


def test_numbers_and_texts_as_keys_of_names_are_one_kind(tmp_path: Path):
    spec = yolo(tmp_path, "0 .3 .5 .4 .5\n", names={"1": "bee", 0: "ant"})
    assert read(spec, subset="train").class_names == NAMES


def test_files_of_systems_and_tools_are_no_data(tmp_path: Path):
    for kind in ("yolo", "voc"):
        root = Path(write(kind, tmp_path / kind, pictures(), NAMES))
        folder = root / ("images" if kind == "yolo" else "JPEGImages")
        (folder / "._p0.png").write_bytes(b"\0\5\x16\7")
        for hidden in (".ipynb_checkpoints", "__MACOSX"):
            write_images(folder / hidden, [Picture("p0-checkpoint.png", 9, 9)])
        if kind == "voc":
            (root / "Annotations" / "._p0.xml").write_bytes(b"\0\5\x16\7")
        table = read(str(root), subset="train" if kind == "yolo" else "")
        assert [Path(x).name for x in table.file_names] == ["p0.png", "p1.png"]


def test_labels_without_a_picture_are_said(tmp_path: Path, caplog):
    spec = yolo(tmp_path, "0 .3 .5 .4 .5\n")
    assert len(read(spec, subset="train")) == 2 and not caplog.text
    (tmp_path / "labels" / "lost.txt").write_text("0 .3 .5 .4 .5\n")
    read(spec, subset="train")
    assert "1 label files have no picture" in caplog.text and "lost.txt" in caplog.text


def test_empty_files_beside_pictures_do_not_hide_labels(tmp_path: Path):
    spec = yolo(tmp_path, "0 .3 .5 .4 .5\n")
    (tmp_path / "images" / "p0.txt").touch()
    assert len(read(spec, subset="train").boxes) == 2


def test_an_xml_belongs_to_the_picture_of_its_own_name(tmp_path: Path):
    root = write("voc", tmp_path, pictures(), NAMES)
    xml = tmp_path / "Annotations" / "p1.xml"
    xml.write_text(xml.read_text().replace("p1.png", "p0.png"))
    table = read(root)
    assert [Path(x).name for x in table.file_names] == ["p0.png", "p1.png"]
    xml.rename(tmp_path / "Annotations" / "other.xml")  # now only what it says is left
    with pytest.raises(InputError, match=r"p0.xml and .*other.xml|other.xml.*p0.xml"):
        read(root)


def test_upper_case_xml_is_read(tmp_path: Path):
    root = write("voc", tmp_path, pictures(), NAMES)
    (tmp_path / "Annotations" / "p1.xml").rename(tmp_path / "Annotations" / "p1.XML")
    assert len(read(root)) == 2


def test_a_picture_twice_in_a_list_counts_once(tmp_path: Path, caplog):
    write("voc", tmp_path, pictures(), NAMES)
    listing = tmp_path / "ImageSets" / "Main" / "train.txt"
    listing.parent.mkdir(parents=True)
    listing.write_text("p0\np1\np0\n")
    assert len(read(str(listing), format="voc")) == 2
    assert "1 lines repeat a picture (first p0)" in caplog.text


def test_a_quote_that_is_not_closed(tmp_path: Path):
    spec = write("csv", tmp_path, pictures(), NAMES)
    path = Path(spec)
    path.write_text(path.read_text().replace(",ant", ',"ant', 1))
    with pytest.raises(InputError, match=r"boxes.csv, line 1: a quote .* not closed"):
        read(spec)


def test_a_path_only_is_a_picture_without_objects(tmp_path: Path):
    spec = write("csv", tmp_path, pictures(), NAMES)
    write_images(tmp_path / "pictures", [Picture("empty.png", 9, 9)])
    path = Path(spec)
    path.write_text(path.read_text() + "pictures/empty.png\n")
    assert len(read(spec)) == 3 and len(read(spec).boxes) == 2
