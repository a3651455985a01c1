"""The same boxes in four formats are the same dataset dicts."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from detectron2.data.datasets import load_coco_json
from detectron2.data.detection_utils import read_image
from detectron2.structures import BoxMode
from PIL import Image

from retinanet_ext.data.datasets.command_line import split_flag
from retinanet_ext.data.formats import BoxTable, Source, detect, read_cached
from retinanet_ext.data.formats.images import image_size
from tests.helpers.four_formats import FORMATS, Picture, some_pictures, write

NAMES = ["ant", "bee", "cat"]


def read(flag: str, **fields) -> BoxTable:
    annotations, images = split_flag(flag)
    return read_cached(detect(Source(annotations, images, **fields)), "")


def records(table: BoxTable) -> list[dict]:
    """Dicts in which the path is the file name alone."""
    dicts = table.records()
    for record in dicts:
        assert os.path.isfile(record["file_name"])
        record["file_name"] = os.path.basename(record["file_name"])
    return dicts


def expected(pictures: list[Picture]) -> list[dict]:
    return [
        {
            "file_name": p.name,
            "height": p.height,
            "width": p.width,
            "image_id": number,
            "annotations": [
                {
                    "bbox": list(box),
                    "bbox_mode": BoxMode.XYXY_ABS,
                    "category_id": NAMES.index(label),
                    "iscrowd": 0,
                }
                for label, *box in p.boxes
            ],
        }
        for number, p in enumerate(pictures, 1)
    ]


@pytest.mark.parametrize("kind", FORMATS)
def test_each_format_gives_the_dicts_that_were_written(kind, tmp_path):
    pictures = some_pictures()
    table = read(write(kind, tmp_path, pictures, NAMES))
    assert records(table) == expected(pictures)
    assert table.class_names == NAMES
    assert table.declared == (kind in ("coco", "yolo"))


def test_coco_dicts_are_those_of_detectron2(tmp_path, clean_catalogs):
    flag = write("coco", tmp_path, some_pictures(), NAMES)
    ours = read(flag).records()
    theirs = load_coco_json(*split_flag(flag), "json_of_four_formats")
    for a, b in zip(ours, theirs, strict=True):
        boxes = [x.pop("bbox") for x in a["annotations"]]
        modes = [x.pop("bbox_mode") for x in a["annotations"]]
        for box, mode, other in zip(boxes, modes, b["annotations"], strict=True):
            converted = BoxMode.convert(other.pop("bbox"), other.pop("bbox_mode"), mode)
            assert box == pytest.approx(converted, abs=1e-5)  # theirs is float32
        assert a == b


@pytest.mark.parametrize("orientation", range(1, 9))
def test_sizes_are_those_that_detectron2_reads(orientation, tmp_path):
    image = Image.new("RGB", (12, 7))
    exif = image.getexif()
    exif[274] = orientation
    image.save(tmp_path / "a.jpg", exif=exif)
    assert image_size(str(tmp_path / "a.jpg")) == read_image(str(tmp_path / "a.jpg")).shape[:2]


def test_an_unreadable_image_is_named(tmp_path):
    (tmp_path / "a.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"a\.png cannot be read"):
        image_size(str(tmp_path / "a.png"))


def test_a_class_map_renumbers_and_leaves_out(tmp_path):
    table = read(write("csv", tmp_path, some_pictures(2), NAMES))
    dicts = table.records([0], [1, -1, 0])
    assert [x["category_id"] for x in dicts[0]["annotations"]] == [1, 0]
    assert len(dicts) == 1


def bccd_pictures(path: Path) -> list[Picture]:
    content = json.loads(path.read_text())
    names = {c["id"]: c["name"] for c in content["categories"]}
    pictures = {
        i["id"]: Picture(i["file_name"], i["width"], i["height"]) for i in content["images"]
    }
    for a in content["annotations"]:
        x, y, w, h = a["bbox"]
        box = (names[a["category_id"]], x, y, round(x + w, 3), round(y + h, 3))
        pictures[a["image_id"]].boxes.append(box)
    return sorted(pictures.values(), key=lambda p: p.name)


def by_name(table: BoxTable) -> dict[str, dict]:
    dicts = {record["file_name"]: record for record in records(table)}
    for record in dicts.values():
        del record["image_id"]  # only COCO has them
    return dicts


def test_bccd_is_the_same_in_four_formats(tmp_path, shared_datasets):
    root = shared_datasets / "bccd"
    annotations, images = root / "annotations" / "instances_val.json", root / "val"
    coco = read(f"{annotations}:{images}")
    assert (len(coco), len(coco.boxes)) == (73, 920)
    pictures = bccd_pictures(annotations)
    for kind in ("voc", "yolo", "csv"):
        flag = write(kind, tmp_path / kind, pictures, coco.class_names, images)
        table = read(flag)
        assert table.class_names == coco.class_names
        assert by_name(table) == by_name(coco), kind
