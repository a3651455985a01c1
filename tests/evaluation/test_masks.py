"""Masks of a detector are scored beside its boxes."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog
from detectron2.evaluation import COCOEvaluator
from detectron2.structures import BitMasks, Boxes, Instances

from retinanet_ext.evaluation import COCODetectionEvaluator
from tests.helpers.coco_scenes import SIZE, random_ground_truth


def lozenges(truth: dict) -> None:
    """Give each object a mask that its box does not tell: a square on its corner."""
    for annotation in truth["annotations"]:
        x, y, w, h = annotation["bbox"]
        corners = [x + w / 2, y, x + w, y + h / 2, x + w / 2, y + h, x, y + h / 2]
        annotation["segmentation"] = [corners]
        annotation["area"] = w * h / 2


def feed(evaluator: COCOEvaluator, truth: dict, boxes_as_masks: bool = False) -> None:
    ids = sorted(c["id"] for c in truth["categories"])
    evaluator.reset()
    for image in truth["images"]:
        objects = [
            a for a in truth["annotations"] if a["image_id"] == image["id"] and not a["iscrowd"]
        ]
        boxes = torch.tensor([a["bbox"] for a in objects], dtype=torch.float32).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        found = Instances((SIZE, SIZE), pred_boxes=Boxes(boxes))
        found.scores = torch.linspace(0.9, 0.5, len(objects))
        found.pred_classes = torch.tensor([ids.index(a["category_id"]) for a in objects]).long()
        polygons = [
            [
                np.array(b[[0, 1, 2, 1, 2, 3, 0, 3]] if boxes_as_masks else a["segmentation"][0])
                for _ in range(1)
            ]
            for a, b in zip(objects, boxes.numpy(), strict=True)
        ]
        masks = BitMasks.from_polygon_masks(polygons, SIZE, SIZE) if objects else None
        found.pred_masks = torch.zeros(0, SIZE, SIZE) if masks is None else masks.tensor
        evaluator.process(
            [{"image_id": image["id"], "height": SIZE, "width": SIZE}], [{"instances": found}]
        )


def test_the_masks_of_the_objects_have_an_ap_of_100(register):
    truth = random_ground_truth(np.random.default_rng(0), num_images=8, num_objects=30)
    lozenges(truth)
    evaluator = COCODetectionEvaluator(register(truth), distributed=False)
    feed(evaluator, truth)
    results = evaluator.evaluate()
    assert results.keys() == {"bbox", "segm"}
    assert results["segm"]["AP"] == pytest.approx(100) == results["bbox"]["AP"]


@pytest.mark.parametrize("use_fast_impl", [True, False])
def test_masks_that_are_boxes_score_as_in_detectron2(register, use_fast_impl: bool):
    truth = random_ground_truth(np.random.default_rng(1), num_images=8, num_objects=30)
    lozenges(truth)
    name = register(truth)
    ours = COCODetectionEvaluator(name, distributed=False, use_fast_impl=use_fast_impl)
    feed(ours, truth, boxes_as_masks=True)
    results = ours.evaluate()
    DatasetCatalog.get(name)  # Detectron2 learns the class ids by loading
    theirs = COCOEvaluator(name, ("bbox", "segm"), False, use_fast_impl=False)
    feed(theirs, truth, boxes_as_masks=True)
    expected = theirs.evaluate()
    assert results["segm"]["AP"] < 50 < results["bbox"]["AP"]
    for task in ("bbox", "segm"):
        got = {key: results[task][key] for key in expected[task]}
        assert got == pytest.approx(expected[task], abs=1e-9, nan_ok=True)


def test_a_dataset_without_masks_says_that_only_boxes_are_scored(register, caplog):
    truth = random_ground_truth(np.random.default_rng(0), num_images=4, num_objects=8)
    with_masks = {**truth, "annotations": [dict(a) for a in truth["annotations"]]}
    lozenges(with_masks)
    evaluator = COCODetectionEvaluator(register(truth), distributed=False)
    feed(evaluator, with_masks)
    with caplog.at_level(logging.WARNING, logger="retinanet_ext"):
        assert evaluator.evaluate().keys() == {"bbox"}
    assert "no masks" in caplog.text
