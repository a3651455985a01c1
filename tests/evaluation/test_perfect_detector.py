"""A detector that answers with what training sees gets AP 100, whatever the annotations hold."""

from __future__ import annotations

import json
import logging
import random
from pathlib import Path

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import Boxes, BoxMode, Instances

from retinanet_ext.config import get_cfg
from retinanet_ext.data import register_coco_dataset
from retinanet_ext.data.augment.train_mapper import build_train_mapper
from retinanet_ext.data.datasets.by_path import register_extra_datasets
from retinanet_ext.data.datasets.command_line import name_datasets
from retinanet_ext.evaluation import COCODetectionEvaluator
from tests.helpers.four_formats import FORMATS, Picture, write, write_images

pytestmark = pytest.mark.usefixtures("clean_catalogs")

NAMES = ["ant", "bee"]


def odd_pictures(seed: int) -> list[Picture]:
    """Boxes of every kind: right, inverted, over the border, outside, without area."""
    rng = random.Random(seed)
    pictures = []
    for i in range(6):
        p = Picture(f"p{i}.png", rng.randint(60, 120), rng.randint(60, 120))
        for k, kind in enumerate(rng.choices(["right", "turned", "over", "outside", "line"], k=5)):
            # One column for each, so that no two of them touch.
            x1, x2 = p.width * (k + 0.1) / 5, p.width * (k + 0.9) / 5
            y1, y2 = 10.0, rng.uniform(25, 50)
            if kind == "over":
                y1, y2 = p.height - rng.uniform(10, 20), p.height + rng.uniform(0.3, 20)
            elif kind == "outside":
                y1, y2 = p.height + 5.0, p.height + 25.0
            elif kind == "line":
                y2 = y1
            elif kind == "turned":
                x1, x2 = x2, x1
            p.boxes.append((rng.choice(NAMES), *(round(v, 2) for v in (x1, y1, x2, y2))))
        p.boxes.append(("ant", 2.0, 52.0, 22.0, 59.0))
        pictures.append(p)
    return pictures


def config():
    cfg = get_cfg()
    cfg.DATASETS.CACHE_DIR, cfg.DATASETS.VAL_FRACTION = "none", 0.0
    cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.MAX_SIZE_TRAIN = (128,), 400
    cfg.INPUT.RANDOM_FLIP = "none"
    return cfg


def perfect_ap(cfg, name: str) -> dict[str, float]:
    evaluator = COCODetectionEvaluator(name, distributed=False)
    mapper = build_train_mapper(cfg)
    for record in DatasetCatalog.get(name):
        seen = mapper(record)["instances"]
        answer = Instances((record["height"], record["width"]))
        boxes = seen.gt_boxes.tensor.clone()
        boxes[:, 0::2] *= record["width"] / seen.image_size[1]
        boxes[:, 1::2] *= record["height"] / seen.image_size[0]
        answer.pred_boxes, answer.pred_classes = Boxes(boxes), seen.gt_classes
        answer.scores = boxes.new_full((len(boxes),), 0.9)
        evaluator.process([record], [{"instances": answer}])
    return evaluator.evaluate()["bbox"]


@pytest.mark.parametrize("augmented", [False, True])
@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("seed", range(3))
def test_of_every_format(tmp_path: Path, kind: str, seed: int, augmented: bool):
    cfg, pictures = config(), odd_pictures(seed)
    if kind == "yolo":  # has no numbers for some of these faults
        for p in pictures:
            p.boxes = [b for b in p.boxes if max(b[2], b[4]) <= p.height and b[1] < b[3]]
    name_datasets(cfg, write(kind, tmp_path / kind, pictures, NAMES), None)
    (name,) = register_extra_datasets(cfg)
    if augmented:
        cfg.INPUT.AUG = ["Default", {"NAME": "RandomBrightness", "PROB": 0.5}]
    result = perfect_ap(cfg, name)
    assert result["AP"] == pytest.approx(100) and result["AR100"] == pytest.approx(100)


@pytest.mark.parametrize("own_function", [False, True])
def test_of_a_registered_dataset(tmp_path: Path, own_function: bool):
    pictures = odd_pictures(7)
    spec = write("coco", tmp_path, pictures, NAMES)
    json_file, folder = spec.split(":")
    register_coco_dataset("odd_boxes", json_file, folder)
    name = "odd_boxes"
    if own_function:
        name = "odd_dicts"
        records = [
            {
                "file_name": str(tmp_path / "pictures" / p.name),
                "height": p.height,
                "width": p.width,
                "image_id": i,
                "annotations": [
                    {
                        "bbox": list(b[1:]),
                        "bbox_mode": BoxMode.XYXY_ABS,
                        "category_id": NAMES.index(b[0]),
                    }
                    for b in p.boxes
                ],
            }
            for i, p in enumerate(pictures)
        ]
        DatasetCatalog.register(name, lambda: records)
        MetadataCatalog.get(name).thing_classes = NAMES
    assert perfect_ap(config(), name)["AP"] == pytest.approx(100)


def test_what_was_changed_is_said_once_in_one_line(tmp_path: Path, caplog):
    p = Picture("a.png", 80, 60, [("ant", 5, 5, 30, 30), ("ant", 40, 9, 40, 30)])
    p.boxes += [("bee", 60, 9, 50, 30), ("bee", 60, 40, 90, 55), ("bee", 90, 5, 95, 9)]
    cfg = config()
    name_datasets(cfg, write("csv", tmp_path, [p], NAMES), None)
    with caplog.at_level(logging.WARNING):
        (name,) = register_extra_datasets(cfg)
        DatasetCatalog.get(name)
    (message,) = caplog.messages
    assert "1 box without area left out, first: " in message and "a.png [40, 9, 40, 30]" in message
    assert "1 box outside of its image left out" in message and "turned round" in message
    assert "1 box over the border cut" in message
    assert [a["bbox"] for a in DatasetCatalog.get(name)[0]["annotations"]] == [
        [5, 5, 30, 30],
        [50, 9, 60, 30],
        [60, 40, 80, 55],
    ]


def test_what_rounding_puts_over_the_border_leaves_ground_truth_as_it_is(tmp_path: Path):
    write_images(tmp_path / "pictures", [Picture("p.png", 100, 80)])
    row = {"id": 1, "image_id": 1, "category_id": 1, "iscrowd": 0}
    content = {
        "images": [{"id": 1, "file_name": "p.png", "width": 100, "height": 80}],
        "annotations": [{**row, "bbox": [10.0, 20.0, 90.01, 50.0], "area": 4321.0}],
        "categories": [{"id": 1, "name": "ant"}],
    }
    path = tmp_path / "boxes.json"
    path.write_text(json.dumps(content))
    register_coco_dataset("rounded", path, tmp_path / "pictures")
    evaluator = COCODetectionEvaluator("rounded", distributed=False)
    assert evaluator._coco_api.anns[1]["bbox"] == [10.0, 20.0, 90.01, 50.0]
    assert evaluator._coco_api.anns[1]["area"] == 4321.0


@pytest.mark.parametrize("area", [None, [3], "many", True, float("nan")])
def test_an_area_that_is_no_number_is_that_of_the_box(tmp_path: Path, area):
    write_images(tmp_path / "pictures", [Picture("p.png", 100, 80)])
    row = {"id": 1, "image_id": 1, "category_id": 1, "iscrowd": 0, "area": area}
    content = {
        "images": [{"id": 1, "file_name": "p.png", "width": 100, "height": 80}],
        "annotations": [{**row, "bbox": [10, 20, 60, 50]}],
        "categories": [{"id": 1, "name": "ant"}],
    }
    path = tmp_path / "boxes.json"
    path.write_text(json.dumps(content))
    register_coco_dataset("areas", path, tmp_path / "pictures")
    result = perfect_ap(config(), "areas")
    assert result["APm"] == pytest.approx(100) and result["APs"] != result["APs"]
