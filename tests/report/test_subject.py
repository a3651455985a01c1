"""What a report is about: datasets by name, and what their pictures are called."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BoxMode
from PIL import Image
from pycocotools.coco import COCO

from retinanet_ext.data.datasets.register import register_coco_dataset
from retinanet_ext.errors import InputError
from retinanet_ext.report import ReportOptions, subject_of_dataset, write_report
from retinanet_ext.report.compute.subject import Subject, shown_file
from tests.helpers.coco_file import coco_file
from tests.helpers.reports import Page

BOX = [10.0, 10.0, 20.0, 20.0]


@pytest.fixture(autouse=True)
def catalogs(clean_catalogs: None) -> None:
    """Undone after each test."""


def detections(path: Path, category_id: int) -> str:
    row = {"image_id": 7, "category_id": category_id, "bbox": BOX, "score": 0.9}
    path.write_text(json.dumps([row]))
    return str(path)


def test_a_dataset_of_dicts_has_its_classes_and_pictures_and_tells_no_folder(tmp_path):
    picture = tmp_path / "pets" / "a.png"
    picture.parent.mkdir()
    Image.new("RGB", (64, 48)).save(picture)
    annotation = {"bbox": BOX, "bbox_mode": BoxMode.XYWH_ABS, "category_id": 1}
    record = {"file_name": str(picture), "image_id": 7, "height": 48, "width": 64}
    DatasetCatalog.register("pets", lambda: [{**record, "annotations": [annotation]}])
    MetadataCatalog.get("pets").thing_classes = ["cat", "dog"]
    subject = subject_of_dataset("pets", detections(tmp_path / "found.json", 1))
    assert dict(subject.names) == {0: "cat", 1: "dog"}
    assert dict(subject.files) == {7: str(picture)} and not subject.remarks
    assert shown_file(subject, 7) == "a.png"
    written = write_report(
        subject, str(tmp_path / "out" / "r.html"), options=ReportOptions(draws=0)
    )
    assert written.content["summary"]["AP"] == pytest.approx(100)
    for path in (written.page, written.numbers, written.thresholds):
        assert str(tmp_path) not in Path(path).read_text()


def test_sparse_category_ids_are_those_of_the_file(tmp_path):
    boxes = [{"image_id": 7, "category_id": 40, "bbox": BOX}]
    truth = coco_file(tmp_path / "t.json", {"a.png": (64, 48)}, boxes, {20: "cat", 40: "dog"}, 7)
    (tmp_path / "img").mkdir()
    Image.new("RGB", (64, 48)).save(tmp_path / "img" / "a.png")
    register_coco_dataset("pets", truth, tmp_path / "img")
    subject = subject_of_dataset("pets", detections(tmp_path / "found.json", 40))
    assert dict(subject.names) == {20: "cat", 40: "dog"}
    written = write_report(subject, str(tmp_path / "r.html"), options=ReportOptions(draws=0))
    assert written.content["classes"]["dog"]["AP"] == pytest.approx(100)
    assert Page(written.page).ids()
    with pytest.raises(InputError, match="category ids"):
        subject_of_dataset("pets", detections(tmp_path / "found.json", 1))


def test_a_set_without_annotations_has_no_report(tmp_path):
    truth = coco_file(tmp_path / "t.json", {"a.png": (64, 48)}, (), {1: "cat"}, 7)
    content = json.loads(truth.read_text())
    del content["annotations"]
    truth.write_text(json.dumps(content))
    register_coco_dataset("pets", truth, tmp_path)
    with pytest.raises(InputError, match="has no annotations"):
        subject_of_dataset("pets", detections(tmp_path / "found.json", 1))


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("a.png", "a.png"),
        ("sub/a.png", "sub/a.png"),
        ("/home/me/a.png", "a.png"),
        ("C:\\Users\\me\\a.png", "a.png"),
        ("../../me/a.png", "a.png"),
        ("s3://bucket/a.png", "a.png"),
        ("", "image 7"),
        (None, "image 7"),
    ],
)
def test_a_picture_is_called_as_in_the_annotations_without_folders_of_the_user(name, shown):
    coco = COCO()
    coco.imgs = {7: {"id": 7, "file_name": name}}
    assert shown_file(Subject("x", coco, [], {}, {}, ("", "")), 7) == shown
