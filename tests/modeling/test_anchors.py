"""Octave anchors."""

from __future__ import annotations

import copy
import pickle
import warnings

import pytest
import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling import build_anchor_generator
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator

from retinanet_ext import get_cfg, validate_cfg
from retinanet_ext.modeling import RetinaNetAnchorGenerator
from retinanet_ext.modeling.anchors import octave_sizes

STRIDES = [8, 16, 32, 64, 128]
BASES = [32.0, 64.0, 128.0, 256.0, 512.0]


def features(height: int = 100, width: int = 152) -> list[torch.Tensor]:
    return [torch.zeros(1, 1, -(-height // s), -(-width // s)) for s in STRIDES]


def generator(**changes) -> RetinaNetAnchorGenerator:
    arguments = {
        "octave_base_sizes": BASES,
        "scales_per_octave": 1,
        "aspect_ratios": [[1.0]],
        "strides": STRIDES,
        **changes,
    }
    return RetinaNetAnchorGenerator(**arguments)


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


ODD_SIZES = [[44.0, 60.0], [88.0, 100.0]]


@pytest.mark.parametrize("sizes", [ODD_SIZES, ODD_SIZES[:1]], ids=["per level", "for all"])
def test_sizes_that_are_no_octaves_give_detectron2s_anchors(sizes: list):
    cfg = get_cfg()
    cfg.MODEL.META_ARCHITECTURE = "RetinaNetExt"
    node = cfg.MODEL.ANCHOR_GENERATOR
    node.NAME, node.OCTAVE_BASE_SIZES, node.SIZES = "RetinaNetAnchorGenerator", [], sizes
    cfg.MODEL.RETINANET.IN_FEATURES = ["p3", "p4"]
    assert validate_cfg(cfg) == []
    shapes = [ShapeSpec(stride=8), ShapeSpec(stride=16)]
    ours = build_anchor_generator(cfg, shapes)
    node.NAME = "DefaultAnchorGenerator"
    theirs = build_anchor_generator(cfg, shapes)
    maps = [torch.zeros(1, 1, 6, 8), torch.zeros(1, 1, 3, 4)]
    for got, expected in zip(ours(maps), theirs(maps), strict=True):
        torch.testing.assert_close(got.tensor, expected.tensor)


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({}, "OCTAVE_BASE_SIZES must be positive sizes in pixels, one per level, got \\[\\]"),
        ({"SIZES": ODD_SIZES, "SCALES_PER_OCTAVE": 2}, "SCALES_PER_OCTAVE is 2, but .* remove it"),
        ({"SIZES": ODD_SIZES, "SCALES_OF_LEVELS": [2, 2]}, "SCALES_OF_LEVELS is .* remove it"),
        ({"SIZES": [44.0, 60.0]}, r"SIZES .*positive"),
        ({"SIZES": [[44.0, -1.0]]}, r"SIZES .*positive"),
        (
            {"SIZES": ODD_SIZES, "OCTAVE_BASE_SIZES": [32.0, 64.0]},
            r"SIZES is \[\[44.* or OCTAVE_BASE_SIZES to \[\]",
        ),
    ],
)
def test_sizes_that_cannot_work_are_refused_by_name(keys: dict, words: str):
    cfg = get_cfg()
    cfg.MODEL.META_ARCHITECTURE = "RetinaNetExt"
    cfg.MODEL.ANCHOR_GENERATOR.NAME = "RetinaNetAnchorGenerator"
    for key, value in {"OCTAVE_BASE_SIZES": [], **keys}.items():
        cfg.MODEL.ANCHOR_GENERATOR[key] = value
    with pytest.raises(ValueError, match=words):
        validate_cfg(cfg)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"sizes": ODD_SIZES, "octave_base_sizes": ()}, "SIZES has 2 entries"),
        ({"sizes": ODD_SIZES[:1]}, "octave_base_sizes or sizes; give one"),
        ({"octave_base_sizes": [32.0]}, "OCTAVE_BASE_SIZES has 1 entries"),
        ({"octave_base_sizes": [0.0] * 5}, "OCTAVE_BASE_SIZES must be positive"),
        ({"scales_per_octave": 0}, "SCALES_PER_OCTAVE must be at least 1"),
    ],
)
def test_nonsense_is_refused_by_name(changes: dict, words: str):
    with pytest.raises(ValueError, match=words):
        generator(**changes)


def addresses(boxes) -> list[int]:
    return [x.tensor.data_ptr() for x in boxes]


def test_same_size_gives_the_same_tensors_in_new_boxes():
    anchors = generator()
    first, second = anchors(features()), anchors(features())
    assert addresses(first) == addresses(second)
    assert all(a is not b for a, b in zip(first, second, strict=True))
    assert addresses(generator()(features())) != addresses(first), "shared between instances"


def test_each_size_has_its_own_anchors():
    anchors = generator()
    for size in ((64, 96), (96, 64), (64, 96), (32, 32)):
        expected = generator()(features(*size))
        for got, want in zip(anchors(features(*size)), expected, strict=True):
            assert torch.equal(got.tensor, want.tensor)


def test_only_the_last_sizes_are_kept():
    anchors = generator()
    first = addresses(anchors(features(256, 256)))
    kept = []
    for width in range(8, 8 * 30, 8):
        kept.append(anchors(features(8, width)))
        assert addresses(anchors(features(256, 256))) == first  # used all the time, so it stays
    assert len(anchors._cache) == 16
    assert addresses(anchors(features(8, 8 * 29))) == addresses(kept[-1])
    assert addresses(anchors(features(8, 8))) != addresses(kept[0])


@pytest.mark.parametrize("inference", [True, False])
def test_changes_in_place_do_not_reach_the_next_call(inference: bool):
    anchors = generator()
    expected = [x.tensor.clone() for x in anchors(features())]
    with torch.inference_mode(inference):
        anchors(features())[2].scale(3.0, 2.0)
    for got, want in zip(anchors(features()), expected, strict=True):
        assert torch.equal(got.tensor, want)


def test_anchors_of_inference_mode_can_take_part_in_training():
    anchors = generator()
    with torch.inference_mode():
        anchors(features())
    scale = torch.ones((), requires_grad=True)
    (anchors(features())[0].tensor * scale).sum().backward()
    assert scale.grad.isfinite()


def test_moving_or_casting_the_module_starts_anew():
    anchors = generator(scales_per_octave=3)  # sizes that are rounded
    expected = anchors(features())
    anchors.to(torch.bfloat16)
    rounded = anchors(features())
    assert rounded[4].tensor.dtype == torch.float32, "Boxes are float32"
    assert not torch.equal(rounded[0].tensor, expected[0].tensor)
    assert anchors.to("meta")(features())[0].device.type == "meta"
    assert len(anchors._cache) == 1


def test_double_precision_gives_float32_boxes_of_the_same_place():
    double = generator().double()
    found = double(features())
    assert addresses(double(features())) == addresses(found)
    for got, want in zip(found, generator()(features()), strict=True):
        torch.testing.assert_close(got.tensor, want.tensor, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_copies_and_checkpoints_leave_kept_anchors_out(duplicate):
    anchors = generator()
    first = anchors(features())
    assert anchors.state_dict().keys() == generator().state_dict().keys()
    twin = duplicate(anchors)
    assert len(twin._cache) == 0
    again = twin(features())
    assert addresses(again) != addresses(first)
    assert all(torch.equal(a.tensor, b.tensor) for a, b in zip(again, first, strict=True))


def test_a_traced_graph_computes_its_anchors():
    # Kept ones would become constants of the size that was traced.
    anchors = generator(octave_base_sizes=[32.0], strides=[8])
    anchors([torch.zeros(1, 1, 2, 3)])

    class Corners(torch.nn.Module):
        def forward(self, x):
            return anchors([x])[0].tensor + 0 * x.sum()

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", torch.jit.TracerWarning)  # of assertions in Boxes
        traced = torch.jit.trace(Corners(), torch.zeros(1, 1, 2, 3))
    assert "aten::arange" in str(traced.graph)
    assert len(anchors._cache) == 1


# Table 1c: scales per octave, aspect ratios, anchors per location.
TABLE_1C = [
    (1, [1.0], 1),
    (2, [1.0], 2),
    (3, [1.0], 3),
    (1, [0.5, 1.0, 2.0], 3),
    (2, [0.5, 1.0, 2.0], 6),
    (3, [0.5, 1.0, 2.0], 9),
    (4, [0.5, 1.0, 2.0], 12),
]


@pytest.mark.parametrize(("scales", "ratios", "count"), TABLE_1C)
def test_presets_of_table_1c(scales: int, ratios: list[float], count: int):
    cfg = get_cfg()
    cfg.MODEL.ANCHOR_GENERATOR.NAME = "RetinaNetAnchorGenerator"
    cfg.MODEL.ANCHOR_GENERATOR.SCALES_PER_OCTAVE = scales
    cfg.MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS = [ratios]
    validate_cfg(cfg)
    built = build_anchor_generator(cfg, [ShapeSpec(channels=1, stride=s) for s in STRIDES])
    assert built.num_anchors == [count] * 5
    for base, boxes in zip(BASES, built.cell_anchors, strict=True):
        width, height = (boxes[:, 2:] - boxes[:, :2]).double().unbind(1)
        octave = ((width * height).sqrt() / base).log2()
        expected = torch.arange(scales, dtype=torch.float64) / scales
        expected = expected.repeat_interleave(len(ratios))
        torch.testing.assert_close(octave, expected, rtol=0, atol=1e-5)
        expected = torch.tensor(ratios * scales, dtype=torch.float64)
        torch.testing.assert_close(height / width, expected, rtol=1e-5, atol=0)


def test_levels_can_have_scales_and_ratios_of_their_own():
    cfg = get_cfg()
    cfg.MODEL.ANCHOR_GENERATOR.NAME = "RetinaNetAnchorGenerator"
    cfg.MODEL.ANCHOR_GENERATOR.SCALES_OF_LEVELS = [3, 1, 2, 1, 1]
    cfg.MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS = [[0.5, 1.0], [1.0], [1.0], [1.0], [0.5, 1.0, 2.0]]
    validate_cfg(cfg)
    built = build_anchor_generator(cfg, [ShapeSpec(channels=1, stride=s) for s in STRIDES])
    assert built.num_anchors == [6, 1, 2, 1, 3]
    maps = features(64, 96)
    counts = [x.shape[2] * x.shape[3] * a for x, a in zip(maps, built.num_anchors, strict=True)]
    assert [len(boxes) for boxes in built(maps)] == counts
    cells = list(built.cell_anchors)[2]
    width = cells[:, 2] - cells[:, 0]
    torch.testing.assert_close(width, torch.tensor([128.0, 128 * 2**0.5]))


@pytest.mark.parametrize("scales", [[3, 3], [3, 3, 3, 3, 0]])
def test_scales_of_levels_are_checked_by_name(scales: list[int]):
    with pytest.raises(ValueError, match=r"SCALES_OF_LEVELS is \[3, 3.*each of the 5"):
        octave_sizes(BASES, scales)
