"""The keys by which a detector of another toolkit computes its own numbers; off by default."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from detectron2.layers import FrozenBatchNorm2d
from detectron2.modeling import build_anchor_generator, build_backbone, build_model
from detectron2.structures import Boxes

from retinanet_ext import get_cfg, validate_cfg
from retinanet_ext.errors import InputError
from retinanet_ext.modeling import DenseDecoder
from retinanet_ext.structures import HeadOutputs

CELLS = [[[-8.0, -4.0, 8.0, 4.0], [-3.0, -3.0, 4.0, 5.0]] for _ in range(5)]


def small_cfg(**changes: Any):
    cfg = get_cfg()
    cfg.MODEL.META_ARCHITECTURE = "RetinaNetExt"
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.BACKBONE.NAME = "build_fpn_backbone_p6p7"
    cfg.MODEL.RESNETS.DEPTH = 18
    cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 64
    cfg.MODEL.RESNETS.OUT_FEATURES = cfg.MODEL.FPN.IN_FEATURES = ["res3", "res4", "res5"]
    cfg.MODEL.FPN.OUT_CHANNELS = 8
    cfg.MODEL.ANCHOR_GENERATOR.NAME = "RetinaNetAnchorGenerator"
    cfg.MODEL.RETINANET.NUM_CLASSES, cfg.MODEL.RETINANET.NUM_CONVS = 2, 0
    cfg.merge_from_list([x for k, v in changes.items() for x in (k.replace("__", "."), v)])
    return cfg


def cells_cfg(cells: Any = CELLS, **changes: Any):
    return small_cfg(
        MODEL__ANCHOR_GENERATOR__CELL_ANCHORS=cells,
        MODEL__ANCHOR_GENERATOR__OCTAVE_BASE_SIZES=[],
        **changes,
    )


def test_given_anchors_lie_around_each_location():
    cfg = cells_cfg()
    validate_cfg(cfg)
    model = build_model(cfg)
    assert model.anchor_generator.num_anchors == [2] * 5
    assert model.head.cls_score.out_channels == 2 * 2
    maps = [torch.zeros(1, 8, s, s) for s in (4, 2, 1, 1, 1)]
    anchors = model.anchor_generator(maps)[0].tensor.view(4, 4, 2, 4)
    assert anchors[0, 0].tolist() == CELLS[0]
    expected = torch.tensor(CELLS[0]) + torch.tensor([8.0, 24.0, 8.0, 24.0])
    assert torch.equal(anchors[3, 1], expected)


def test_boxes_of_the_octaves_given_one_by_one_are_the_octaves():
    plain = build_model(small_cfg())
    cells = [x.tolist() for x in plain.anchor_generator.cell_anchors]
    given = build_model(cells_cfg(cells))
    for a, b in zip(
        plain.anchor_generator.cell_anchors, given.anchor_generator.cell_anchors, strict=True
    ):
        assert torch.equal(a, b)


@pytest.mark.parametrize(
    "cells", [[[]], [[[1.0, 1.0, 1.0, 2.0]]], [[[0.0, 0.0, 1.0]]], [[["a", 0, 1, 2]]], [3]]
)
def test_what_is_no_box_is_refused(cells: Any):
    with pytest.raises(InputError, match=r"CELL_ANCHORS must be a list for each level of boxes"):
        validate_cfg(cells_cfg(cells))


def test_a_list_for_each_level_is_needed():
    cfg = cells_cfg(CELLS[:4])
    with pytest.raises(InputError, match="for each of the 5 levels"):
        build_model(cfg)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("OCTAVE_BASE_SIZES", [32.0] * 5),
        ("SCALES_PER_OCTAVE", 2),
        ("SIZES", [[32.0]]),
        ("ASPECT_RATIOS", [[1.0]]),
    ],
)
def test_what_given_anchors_leave_unread_is_refused(key: str, value: Any):
    cfg = cells_cfg()
    cfg.MODEL.ANCHOR_GENERATOR[key] = value
    with pytest.raises(InputError, match=rf"ANCHOR_GENERATOR\.{key} is .* nothing reads it"):
        validate_cfg(cfg)


@pytest.mark.parametrize("relu", [True, False])
def test_a_relu_before_p7_is_as_the_key_says(relu: bool):
    torch.manual_seed(0)
    backbone = build_backbone(small_cfg(MODEL__FPN__TOP_BLOCK_RELU=relu)).eval()
    with torch.no_grad():
        maps = backbone(torch.rand(1, 3, 64, 64))
        p7, source = backbone.top_block.p7, maps["p6"].relu() if relu else maps["p6"]
        assert maps["p6"].min() < 0
        torch.testing.assert_close(maps["p7"], F.conv2d(source, p7.weight, p7.bias, 2, 1))


def test_the_eps_reaches_every_batch_norm_under_the_pyramid():
    backbone = build_backbone(small_cfg(MODEL__RESNETS__NORM_EPS=0.25))
    norms = [m for m in backbone.modules() if isinstance(m, FrozenBatchNorm2d)]
    assert len(norms) == 20 and all(m.eps == 0.25 for m in norms)
    default = build_backbone(small_cfg())
    assert all(m.eps == 1e-5 for m in default.modules() if isinstance(m, FrozenBatchNorm2d))


def test_the_eps_of_another_network_is_refused():
    cfg = small_cfg(MODEL__RESNETS__NORM_EPS=0.0)
    cfg.MODEL.FPN.BOTTOM_UP = "build_efficientnet_lite_backbone"
    cfg.MODEL.FPN.IN_FEATURES = ["c3", "c4", "c5"]
    with pytest.raises(InputError, match=r"NORM_EPS is 0\.0, but .*no ResNet"):
        build_backbone(cfg)


@pytest.mark.parametrize(
    "change",
    [
        {"MODEL__FPN__TOP_BLOCK_RELU": False},
        {"MODEL__RESNETS__NORM_EPS": 0.0},
    ],
    ids=str,
)
def test_keys_that_detectron2s_own_pyramid_does_not_read_are_refused(change: dict[str, Any]):
    cfg = small_cfg(**change)
    cfg.MODEL.BACKBONE.NAME = "build_retinanet_resnet_fpn_backbone"
    with pytest.raises(InputError, match="does not read it"):
        validate_cfg(cfg)


@pytest.mark.parametrize("clip", [False, True])
def test_boxes_are_cut_before_nms_only_where_the_key_says_so(clip: bool):
    cfg = cells_cfg([[[-6.0, -6.0, 6.0, 6.0]]] * 5, MODEL__RETINANET__CLIP_BEFORE_NMS=clip)
    validate_cfg(cfg)
    decoder = DenseDecoder.from_cfg(cfg)
    # Of two boxes at the corner of the image only the parts inside overlap much.
    anchors = [Boxes(torch.tensor([[-30.0, 0.0, 10.0, 10.0], [0.0, 0.0, 11.0, 10.0]]))]
    logits = torch.tensor([2.0, -9.0, 1.0, -9.0]).view(1, 2, 1, 2).permute(0, 3, 2, 1)
    outputs = HeadOutputs(logits=[logits.contiguous()], deltas=[torch.zeros(1, 4, 1, 2)])
    (found,) = decoder(anchors, outputs, [(20, 20)])
    boxes = found.pred_boxes.tensor
    assert len(boxes) == (1 if clip else 2)
    assert boxes[0].tolist() == [0.0 if clip else -30.0, 0.0, 10.0, 10.0]


def test_the_generator_can_be_built_without_a_config():
    cfg = cells_cfg()
    shapes = build_backbone(cfg).output_shape()
    generator = build_anchor_generator(cfg, [shapes[f"p{i}"] for i in range(3, 8)])
    assert [x.tolist() for x in generator.cell_anchors] == CELLS
