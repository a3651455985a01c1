"""Proposals are scored by their average recall, and only by it."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch
from detectron2.structures import Boxes, Instances

from retinanet_ext.evaluation import COCODetectionEvaluator
from tests.helpers.coco_scenes import random_ground_truth


def proposals_of(truth: dict, crowd: bool = False) -> tuple[list[dict], list[dict]]:
    """Inputs and outputs of a model that proposes each object, the smallest first."""
    inputs, outputs = [], []
    for image in truth["images"]:
        boxes = [
            a["bbox"]
            for a in truth["annotations"]
            if a["image_id"] == image["id"] and (crowd or not a["iscrowd"])
        ]
        boxes = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        found = Instances((image["height"], image["width"]), proposal_boxes=Boxes(boxes))
        found.objectness_logits = torch.arange(len(boxes), 0, -1).float()
        inputs.append({"image_id": image["id"]})
        outputs.append({"proposals": found})
    return inputs, outputs


def evaluate(name: str, inputs: list[dict], outputs: list[dict]) -> dict:
    evaluator = COCODetectionEvaluator(name, distributed=False)
    evaluator.reset()
    evaluator.process(inputs, outputs)
    return evaluator.evaluate()


def test_perfect_proposals_have_full_recall(register):
    truth = random_ground_truth(np.random.default_rng(0))
    results = evaluate(register(truth), *proposals_of(truth))
    assert results.keys() == {"box_proposals"}
    found = results["box_proposals"]
    assert found["AR@100"] == found["AR@1000"] == 100
    assert set(found) == {f"AR{size}@{n}" for size in ("", "s", "m", "l") for n in (100, 1000)}


def test_half_of_the_proposals_find_half_of_the_objects(register):
    truth = random_ground_truth(np.random.default_rng(0), crowd=0)
    inputs, outputs = proposals_of(truth)
    total = sum(len(x["proposals"]) for x in outputs)
    outputs = [{"proposals": x["proposals"][::2]} for x in outputs]
    kept = sum(len(x["proposals"]) for x in outputs)
    found = evaluate(register(truth), inputs, outputs)["box_proposals"]
    # An object may be found by the proposal of another one that overlaps it, so at least.
    assert 100 * kept / total - 1e-6 <= found["AR@100"] < 100 * kept / total + 20


def test_no_proposals_have_no_recall(register):
    truth = random_ground_truth(np.random.default_rng(0))
    inputs, outputs = proposals_of(truth)
    outputs = [{"proposals": x["proposals"][:0]} for x in outputs]
    assert evaluate(register(truth), inputs, outputs)["box_proposals"]["AR@1000"] == 0


def test_no_objects_give_zero_and_a_warning(register, caplog: pytest.LogCaptureFixture):
    truth = random_ground_truth(np.random.default_rng(0))
    inputs, outputs = proposals_of(truth)
    truth["annotations"] = []
    with caplog.at_level(logging.WARNING, logger="retinanet_ext"):
        found = evaluate(register(truth), inputs, outputs)["box_proposals"]
    assert set(found.values()) == {0.0}
    assert "no objects to find" in caplog.text


def test_objects_of_images_without_proposals_count_as_missed(register):
    truth = random_ground_truth(np.random.default_rng(0), crowd=0)
    inputs, outputs = proposals_of(truth)
    objects = [len(x["proposals"]) for x in outputs]
    outputs[0] = {"proposals": outputs[0]["proposals"][:0]}
    expected = 100 * (1 - objects[0] / sum(objects))
    assert 0 < expected < 100
    found = evaluate(register(truth), inputs, outputs)["box_proposals"]
    assert found["AR@1000"] == pytest.approx(expected, abs=1e-4)
    found = evaluate(register(truth), inputs[1:], outputs[1:])["box_proposals"]
    assert found["AR@1000"] == pytest.approx(expected, abs=1e-4)
