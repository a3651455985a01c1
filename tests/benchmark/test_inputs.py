"""Synthetic inputs are valid, repeatable and as hard as they say."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from retinanet_ext.benchmark.inputs import (
    expected_passing,
    level_features,
    make_batch,
    random_gt,
    synthetic_outputs,
)
from retinanet_ext.benchmark.peers import OURS, build_side


def test_batch_is_the_same_every_time_and_as_configured(settings):
    first, second = make_batch(settings, 2), make_batch(settings, 2)
    for a, b in zip(first, second, strict=True):
        assert torch.equal(a["image"], b["image"])
        assert torch.equal(a["instances"].gt_boxes.tensor, b["instances"].gt_boxes.tensor)
        assert a["image"].shape == (3, 64, 96) and a["image"].dtype == torch.uint8
        assert len(a["instances"]) == 4
    assert not torch.equal(first[0]["image"], first[1]["image"])


@pytest.mark.parametrize("size", [(64, 96), (800, 1216), (32, 32)])
def test_boxes_lie_inside_of_the_image_and_have_area(size):
    gt = random_gt(size, 500, 3, torch.Generator().manual_seed(0))
    left, top, right, bottom = gt.gt_boxes.tensor.unbind(1)
    assert left.min() >= 0 and top.min() >= 0
    assert right.max() <= size[1] and bottom.max() <= size[0]
    assert (right - left).min() > 15.9 and (bottom - top).min() > 15.9
    assert set(gt.gt_classes.tolist()) == {0, 1, 2}


@pytest.mark.parametrize("size", [(64, 96), (70, 33)])
def test_level_features_have_the_shapes_of_the_backbones_output(settings, size):
    settings = dataclasses.replace(settings, size=size)
    model = build_side(settings, OURS)
    with torch.no_grad():
        features = model.backbone(model.preprocess_image(make_batch(settings, 2)).tensor)
    real = [features[name].shape[-2:] for name in model.head_in_features]
    assert [x.shape[-2:] for x in level_features(model, size, 2)] == real


def test_synthetic_scores_pass_as_often_as_said_and_more_at_objects():
    features = [torch.empty(2, 1, 40, 60), torch.empty(2, 1, 20, 30)]
    labels = torch.full((2, 9 * 3000), 7)
    labels[:, 100:150] = 4
    logits, deltas = synthetic_outputs(features, labels, 7, score_thresh=0.05)
    assert [x.shape for x in logits] == [(2, 63, 40, 60), (2, 63, 20, 30)]
    assert [x.shape for x in deltas] == [(2, 36, 40, 60), (2, 36, 20, 30)]
    passing = sum(int((x.sigmoid() > 0.05).sum()) for x in logits)
    assert abs(passing - 2 * expected_passing(9 * 3000 * 7)) <= 2
    by_anchor = logits[0].view(2, 9, 7, 40, 60).permute(0, 3, 4, 1, 2).reshape(2, -1, 7)
    assert by_anchor[:, 100:150, 4].mean() > by_anchor[:, 100:150, 3].mean() + 4


def test_a_full_size_image_has_3000_passing_scores():
    assert expected_passing(160_000 * 80) == 3000 and expected_passing(1000) == 20
