"""Octave anchors."""

from __future__ import annotations

import pytest
import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling import build_anchor_generator
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator

from retinanet_ext import get_cfg
from retinanet_ext.modeling import RetinaNetAnchorGenerator
from retinanet_ext.modeling.anchors import octave_sizes

STRIDES = [8, 16, 32, 64, 128]
BASES = [32.0, 64.0, 128.0, 256.0, 512.0]


def features(height: int = 100, width: int = 152) -> list[torch.Tensor]:
    return [torch.zeros(1, 1, -(-height // s), -(-width // s)) for s in STRIDES]


@pytest.mark.parametrize("offset", [0.0, 0.5])
def test_paper_setting_equals_detectron2_default_anchors(offset: float):
    sizes = [[x, x * 2 ** (1.0 / 3), x * 2 ** (2.0 / 3)] for x in [32, 64, 128, 256, 512]]
    ratios = [[0.5, 1.0, 2.0]]
    theirs = DefaultAnchorGenerator(
        sizes=sizes, aspect_ratios=ratios, strides=STRIDES, offset=offset
    )
    ours = RetinaNetAnchorGenerator(
        octave_base_sizes=BASES,
        scales_per_octave=3,
        aspect_ratios=ratios,
        strides=STRIDES,
        offset=offset,
    )
    assert ours.num_anchors == theirs.num_anchors == [9] * 5
    for got, expected in zip(ours(features()), theirs(features()), strict=True):
        assert torch.equal(got.tensor, expected.tensor)


def test_anchors_are_where_and_how_large_the_definition_says():
    # One anchor of 4 x 4 per location, stride 8, offset 0.5: centres at 4, 12 in both directions.
    generator = RetinaNetAnchorGenerator(
        octave_base_sizes=[4.0], scales_per_octave=1, aspect_ratios=[[1.0]], strides=[8], offset=0.5
    )
    boxes = generator([torch.zeros(1, 1, 2, 2)])[0].tensor
    expected = [[2, 2, 6, 6], [10, 2, 14, 6], [2, 10, 6, 14], [10, 10, 14, 14]]
    assert boxes.tolist() == expected


def test_ratio_is_height_over_width_at_equal_area():
    generator = RetinaNetAnchorGenerator(
        octave_base_sizes=[32.0], scales_per_octave=1, aspect_ratios=[[2.0]], strides=[8]
    )
    x1, y1, x2, y2 = generator([torch.zeros(1, 1, 1, 1)])[0].tensor[0].tolist()
    assert (y2 - y1) / (x2 - x1) == pytest.approx(2.0)
    assert (y2 - y1) * (x2 - x1) == pytest.approx(32.0**2, rel=1e-5)


def test_octave_scales_are_geometric():
    assert octave_sizes([10.0], 2) == [[10.0, 10.0 * 2**0.5]]
    assert octave_sizes([10.0, 20.0], 1) == [[10.0], [20.0]]


def test_config_chooses_it_by_name():
    cfg = get_cfg()
    cfg.MODEL.ANCHOR_GENERATOR.NAME = "RetinaNetAnchorGenerator"
    cfg.MODEL.ANCHOR_GENERATOR.SCALES_PER_OCTAVE = 2
    cfg.MODEL.ANCHOR_GENERATOR.OCTAVE_BASE_SIZES = [16.0, 32.0]
    generator = build_anchor_generator(cfg, [ShapeSpec(stride=8), ShapeSpec(stride=16)])
    assert isinstance(generator, RetinaNetAnchorGenerator)
    assert generator.num_anchors == [6, 6]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"octave_base_sizes": [32.0]}, "OCTAVE_BASE_SIZES has 1 entries"),
        ({"octave_base_sizes": [0.0] * 5}, "OCTAVE_BASE_SIZES must be positive"),
        ({"scales_per_octave": 0}, "SCALES_PER_OCTAVE must be at least 1"),
    ],
)
def test_nonsense_is_refused_by_name(changes: dict, words: str):
    arguments = {
        "octave_base_sizes": BASES,
        "scales_per_octave": 3,
        "aspect_ratios": [[1.0]],
        "strides": STRIDES,
        **changes,
    }
    with pytest.raises(ValueError, match=words):
        RetinaNetAnchorGenerator(**arguments)
