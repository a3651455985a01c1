"""Recall and matches of a small set, against Detectron2's full matrix of IoUs."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from detectron2.modeling.matcher import Matcher
from detectron2.structures import Boxes, pairwise_iou

from retinanet_ext.anchor_tools import (
    TrainingBoxes,
    count_matches,
    coverage,
    coverage_report,
    format_coverage_report,
)
from retinanet_ext.anchor_tools.coverage import size_classes
from retinanet_ext.modeling.anchors import octave_sizes
from tests.helpers.anchor_scenes import IOU_BANDS, PAPER, STRIDES, levels, scene, tall_scene

NAMES = ("p3", "p4", "p5")


def view_ious(boxes: TrainingBoxes) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Independent: (M, R) IoUs and (R,) levels of each view, with Detectron2's anchors."""
    sizes = octave_sizes(PAPER.octave_base_sizes(STRIDES), PAPER.scales)
    generator = DefaultAnchorGenerator(
        sizes=sizes, aspect_ratios=[list(PAPER.ratios)], strides=[int(x) for x in STRIDES]
    )
    found = []
    for view, (width, height) in enumerate(boxes.sizes.tolist()):
        shapes = [(-(-height // int(s)), -(-width // int(s))) for s in STRIDES]
        anchors = generator([torch.zeros(1, 1, *shape) for shape in shapes])
        index = torch.cat([torch.full((len(x),), i) for i, x in enumerate(anchors)])
        gt = Boxes(torch.as_tensor(boxes.boxes[boxes.view_of == view], dtype=torch.float32))
        found.append((pairwise_iou(gt, Boxes.cat(anchors)), index))
    return found


def test_coverage_is_that_of_all_pairs():
    boxes = scene(6, (1.0, 8.0))
    best = torch.cat([iou.amax(dim=1) for iou, _ in view_ious(boxes)])
    found = coverage(boxes, levels())
    assert found.boxes == 24 and 0 < float(found.recall_at_50) < 1
    assert found.mean_best_iou == pytest.approx(best.mean().item(), abs=1e-5)
    assert found.recall == tuple((best >= x).double().mean().item() for x in (0.4, 0.5))


@pytest.mark.parametrize("allow", [False, True])
@pytest.mark.parametrize("make", [scene, tall_scene])
def test_matches_are_those_of_detectron2s_matcher(make, allow):
    boxes = make()
    counts = {low: [] for low in (False, True)}
    for iou, level_of in view_ious(boxes):
        for low in (False, True):
            matcher = Matcher([0.4, 0.5], [0, -1, 1], allow_low_quality_matches=low)
            matched, label = matcher(iou)
            for row in range(len(iou)):
                own = level_of[(matched == row) & (label == 1)]
                counts[low].append(torch.bincount(own, minlength=3).tolist())
    found = count_matches(boxes, levels(), *IOU_BANDS, allow)
    assert found.counts.tolist() == counts[allow]
    without, with_low = (np.sum(counts[low], axis=1) for low in (False, True))
    assert found.low_quality_only == ((without == 0) & (with_low > 0)).mean()
    assert found.unmatched == ((with_low if allow else without) == 0).mean()
    if make is tall_scene:
        assert found.low_quality_only > 0 and (found.unmatched > 0) != allow


def test_few_views_are_spread_evenly():
    boxes = scene(num=5)
    every = count_matches(boxes, levels(), *IOU_BANDS, True)
    some = count_matches(boxes, levels(), *IOU_BANDS, True, max_views=2)
    assert (every.num_views, some.num_views) == (5, 2)
    assert some.counts.tolist() == every.counts.reshape(5, 4, 3)[[1, 3]].reshape(8, 3).tolist()


def test_sizes_have_cocos_borders():
    sides = np.array([31.9, 32.0, 96.0, 96.1])
    boxes = np.stack([sides * 0, sides * 0, sides, sides], axis=1)
    assert size_classes(boxes).tolist() == [0, 1, 1, 2]


def test_report_adds_up_and_is_json():
    boxes = tall_scene()
    matches = count_matches(boxes, levels(), *IOU_BANDS, True)
    report = json.loads(json.dumps(coverage_report(boxes, levels(), NAMES, matches)))
    assert report["boxes"] == report["all"]["boxes"] == 32 and report["views"] == 8
    for groups in (report["by_size"], report["by_class"]):
        filled = [x for x in groups.values() if x["boxes"]]
        assert sum(x["boxes"] for x in filled) == 32
        weighted = sum(x["recall"]["0.5"] * x["boxes"] for x in filled) / 32
        assert weighted == pytest.approx(report["all"]["recall"]["0.5"])
    assert report["by_size"]["large"] == {
        "boxes": 0,
        "mean_best_iou": None,
        "recall": {"0.4": None, "0.5": None},
    }
    for x in (*report["matches"]["levels"].values(), report["matches"]["all"]):
        assert sum(x["boxes"].values()) == 32
    means = [x["mean"] for x in report["matches"]["levels"].values()]
    assert sum(means) == pytest.approx(report["matches"]["all"]["mean"])
    expected = np.bincount(np.minimum(matches.counts[:, 0], 2), minlength=3)
    bands = list(report["matches"]["levels"]["p3"]["boxes"].items())
    assert bands[:2] == [("0", expected[0]), ("1", expected[1])]


def test_text_names_sizes_classes_and_levels():
    boxes = tall_scene()
    matches = count_matches(boxes, levels(), *IOU_BANDS, False)
    text = format_coverage_report(coverage_report(boxes, levels(), NAMES, matches))
    for word in ("32 boxes in 8 views", "small", "cat", "dog", "p5", "recall at 0.4", "20+"):
        assert word in text
    assert f"No anchor at all: {matches.unmatched:.2%}" in text
