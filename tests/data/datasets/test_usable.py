"""Before each training: boxes that cannot be right stop the run, in every format."""

from __future__ import annotations

from pathlib import Path

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BoxMode

from retinanet_ext.config import get_cfg
from retinanet_ext.data import check_datasets, register_coco_dataset
from retinanet_ext.data.datasets.by_path import register_extra_datasets
from retinanet_ext.data.datasets.command_line import name_datasets
from retinanet_ext.data.datasets.usable import check_masks
from retinanet_ext.errors import InputError
from tests.helpers.four_formats import Picture, write

pytestmark = pytest.mark.usefixtures("clean_catalogs")


def pictures(*boxes: tuple[float, float, float, float]) -> list[Picture]:
    return [Picture(f"{i}.png", 80, 60, [("ant", *box)]) for i, box in enumerate(boxes)]


def start(spec: str) -> None:
    """What a training does before anything else."""
    cfg = get_cfg()
    cfg.DATASETS.CACHE_DIR, cfg.DATASETS.VAL_FRACTION = "none", 0.0
    cfg.MODEL.META_ARCHITECTURE, cfg.MODEL.RETINANET.NUM_CLASSES = "RetinaNetExt", 1
    name_datasets(cfg, spec, None)
    register_extra_datasets(cfg)
    check_datasets(cfg)


SHARES = pictures((0.25, 0.25, 0.6, 0.75), (0.1, 0.3, 0.5, 0.9))


@pytest.mark.parametrize("kind", ["coco", "voc", "csv"])
@pytest.mark.parametrize(
    ("boxes", "fault"),
    [
        (SHARES, "numbers of 0 to 1"),
        (pictures((90, 5, 99, 30), (10, 70, 20, 90)), "2 lie outside of their image"),
        (pictures((10, 5, 10, 30), (10, 7, 20, 7)), "none of the 2 boxes can be used"),
    ],
)
def test_boxes_of_which_none_can_be_right_stop(tmp_path: Path, kind, boxes, fault):
    if kind == "voc" and "2 boxes" in fault:
        for p in boxes:  # VOC's line has its last pixel before its first
            p.boxes = [("ant", 20.0, 5.0, 20.0, 30.0)]
    with pytest.raises(InputError, match=fault) as error:
        start(write(kind, tmp_path, boxes, ["ant"]))
    assert ".png [" in str(error.value) and "\n" not in str(error.value)


def test_yolo_too(tmp_path: Path):
    spec = write("yolo", tmp_path, pictures((10, 5, 10, 30), (10, 7, 20, 7)), ["ant"])
    with pytest.raises(InputError, match="none of the 2 boxes can be used"):
        start(spec)


@pytest.mark.parametrize("boxes", [(0.25, 0.25, 0.6, 0.75), (90.0, 5.0, 99.0, 30.0)])
def test_registered_datasets_too(tmp_path: Path, boxes):
    json_file, folder = write("coco", tmp_path, pictures(boxes), ["ant"]).split(":")
    register_coco_dataset("one_json", json_file, folder)
    box = {"bbox": list(boxes), "bbox_mode": BoxMode.XYXY_ABS, "category_id": 0}
    record = {"file_name": "a.png", "height": 60, "width": 80, "image_id": 1, "annotations": [box]}
    DatasetCatalog.register("one_function", lambda: [record])
    MetadataCatalog.get("one_function").thing_classes = ["ant"]
    cfg = get_cfg()
    cfg.MODEL.META_ARCHITECTURE, cfg.MODEL.RETINANET.NUM_CLASSES = "RetinaNetExt", 1
    for name in ("one_json", "one_function"):
        cfg.DATASETS.TRAIN = (name,)
        with pytest.raises(InputError, match=f"dataset '{name}': "):
            check_datasets(cfg)


def test_a_single_right_box_is_enough(tmp_path: Path):
    some = [*SHARES, Picture("right.png", 80, 60, [("ant", 10, 10, 40, 40)])]
    start(write("csv", tmp_path, some, ["ant"]))


def test_no_object_left_is_said_with_its_reason(tmp_path: Path):
    root = write("voc", tmp_path, pictures((10, 10, 40, 40)), ["ant"])
    (xml,) = (tmp_path / "Annotations").iterdir()
    xml.write_text(xml.read_text().replace("<difficult>0", "<difficult>1"))
    with pytest.raises(InputError, match=r"no object to train on.*all 1 boxes are crowds"):
        start(root)


def test_masks_to_train_on_are_asked_for():
    box = {"bbox": [0, 0, 4, 4], "bbox_mode": BoxMode.XYXY_ABS, "category_id": 0}
    mask = {**box, "segmentation": [[0, 0, 4, 0, 4, 4]]}
    check_masks("ants", [{"annotations": [mask, {**box, "iscrowd": 1}]}, {"annotations": []}, {}])
    with pytest.raises(InputError, match=r"MODEL\.MASK_ON is True, but 1 of 2 objects .* 'ants'"):
        check_masks("ants", [{"annotations": [mask]}, {"annotations": [box]}])
