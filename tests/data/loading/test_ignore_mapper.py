"""Ignored boxes follow the image; everything else is as Detectron2's mapper makes it."""

from __future__ import annotations

import copy
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.data import DatasetMapper
from detectron2.data import transforms as T
from detectron2.data.datasets import load_coco_json
from detectron2.structures import BoxMode
from PIL import Image

from retinanet_ext import get_cfg
from retinanet_ext.data.loading.ignore_mapper import IgnoreRegionMapper
from tests.helpers.coco_file import coco_file

BOX = [10.0, 8.0, 30.0, 20.0]  # XYWH
AUGMENTATIONS = [
    T.RandomCrop("absolute", (40, 50)),
    T.ResizeShortestEdge([53, 97], sample_style="choice"),
    T.RandomFlip(0.5),
    T.RandomFlip(0.5, horizontal=False, vertical=True),
    T.RandomBrightness(0.8, 1.2),
]


@pytest.fixture
def image_file(tmp_path: Path) -> str:
    path = tmp_path / "image.png"
    Image.fromarray(np.random.randint(0, 256, (60, 80, 3), dtype=np.uint8)).save(path)
    return str(path)


def annotation(box: list[float], **extra: Any) -> dict[str, Any]:
    return {"bbox": box, "bbox_mode": BoxMode.XYWH_ABS, "category_id": 1, **extra}


def record(file_name: str, *annotations: dict[str, Any]) -> dict[str, Any]:
    size = {"height": 60, "width": 80, "image_id": 3}
    return {"file_name": file_name, **size, "annotations": list(annotations)}


def make(kind: type = IgnoreRegionMapper, augmentations: list | None = None, **options: Any) -> Any:
    return kind(
        is_train=options.pop("is_train", True),
        augmentations=augmentations or [],
        image_format="BGR",
        **options,
    )


@pytest.mark.parametrize("mark", ["iscrowd", "ignore"])
def test_marked_boxes_are_ignored_and_not_learned(image_file: str, mark: str):
    sample = record(
        image_file, annotation(BOX, **{mark: 0}), annotation([50.0, 5, 20, 10], **{mark: 1})
    )
    before = copy.deepcopy(sample)
    result = make()(sample)
    assert result["ignore_boxes"].tensor.tolist() == [[50, 5, 70, 15]]
    assert result["ignore_boxes"].tensor.dtype == torch.float32
    assert result["instances"].gt_boxes.tensor.tolist() == [[10, 8, 40, 28]]
    assert not result["instances"].has("gt_ignore")
    assert sample == before


@pytest.mark.parametrize("seed", range(6))
def test_ignored_boxes_follow_every_augmentation(image_file: str, seed: int):
    sample = record(image_file, annotation(BOX, iscrowd=0), annotation(BOX, iscrowd=1))
    random.seed(seed)
    np.random.seed(seed)
    result = make(augmentations=AUGMENTATIONS)(sample)
    # One of each at the same place: they are at the same place afterwards.
    assert torch.equal(result["ignore_boxes"].tensor, result["instances"].gt_boxes.tensor)


@pytest.mark.parametrize("seed", range(3))
def test_the_rest_is_as_detectron2_makes_it(image_file: str, seed: int):
    polygon = [[10.0, 8.0, 40.0, 8.0, 40.0, 28.0]]
    crowd = {"counts": [0, 4800], "size": [60, 80]}
    sample = record(
        image_file,
        annotation(BOX, iscrowd=0, segmentation=polygon),
        annotation([0.0, 0, 80, 60], iscrowd=1, segmentation=crowd),
    )
    results = []
    for kind in (DatasetMapper, IgnoreRegionMapper):
        np.random.seed(seed)
        random.seed(seed)
        mapper = make(kind, AUGMENTATIONS[1:], use_instance_mask=True, recompute_boxes=True)
        results.append(mapper(copy.deepcopy(sample)))
    theirs, ours = results
    height, width = ours["image"].shape[1:]
    assert ours.pop("ignore_boxes").tensor.tolist() == [[0, 0, width, height]]
    assert torch.equal(theirs.pop("image"), ours.pop("image"))
    expected, instances = theirs.pop("instances"), ours.pop("instances")
    assert torch.equal(expected.gt_boxes.tensor, instances.gt_boxes.tensor)
    assert set(expected.get_fields()) == set(instances.get_fields())
    assert theirs == ours


def test_boxes_are_clipped_and_those_outside_are_dropped(image_file: str):
    crowds = ([-10.0, -10, 20, 20], [70.0, 50, 30, 30], [90.0, 5, 10, 10], [5.0, 5, 0, 10])
    result = make()(record(image_file, *(annotation(x, iscrowd=1) for x in crowds)))
    assert result["ignore_boxes"].tensor.tolist() == [[0, 0, 10, 10], [70, 50, 80, 60]]
    assert len(result["instances"]) == 0


def test_images_without_ignored_boxes_or_annotations(image_file: str):
    assert make()(record(image_file))["ignore_boxes"].tensor.shape == (0, 4)
    bare = record(image_file)
    del bare["annotations"]
    assert "ignore_boxes" not in make()(bare)
    crowd = record(image_file, annotation(BOX, iscrowd=1))
    assert "ignore_boxes" not in make(is_train=False)(crowd)


def test_crowds_of_a_coco_file_reach_the_detector(image_file: str, tmp_path: Path):
    entry = {"image_id": 1, "category_id": 1}
    boxes = [{**entry, "bbox": BOX}, {**entry, "bbox": [50, 5, 20, 10], "iscrowd": 1}]
    path = coco_file(tmp_path / "coco.json", {"image.png": (80, 60)}, boxes)
    cfg = get_cfg()
    cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.RANDOM_FLIP = (60,), "none"
    mapper = IgnoreRegionMapper(cfg, is_train=True)
    result = mapper(load_coco_json(str(path), str(tmp_path))[0])
    assert result["ignore_boxes"].tensor.tolist() == [[50, 5, 70, 15]]
    assert result["instances"].gt_boxes.tensor.tolist() == [[10, 8, 40, 28]]
