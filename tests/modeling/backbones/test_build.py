"""Feature pyramids: levels, strides, where P6 comes from, ResNet and RegNet underneath."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from detectron2.modeling import BACKBONE_REGISTRY, Backbone, build_backbone, build_model
from detectron2.structures import Boxes, Instances

from retinanet_ext import get_cfg, validate_cfg

CHANNELS = 16


def fpn_cfg(depth: int = 18, top_block_in: str = "c5", with_p2: bool = False):
    cfg = get_cfg()
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.BACKBONE.NAME = "build_fpn_backbone_p6p7"
    cfg.MODEL.RESNETS.DEPTH = depth
    cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 64 if depth < 50 else 256
    features = ["res2", "res3", "res4", "res5"][0 if with_p2 else 1 :]
    cfg.MODEL.RESNETS.OUT_FEATURES = features
    cfg.MODEL.FPN.IN_FEATURES = features
    cfg.MODEL.FPN.OUT_CHANNELS = CHANNELS
    cfg.MODEL.FPN.TOP_BLOCK_IN = top_block_in
    return cfg


def regnet_cfg(top_block_in: str = "c5", with_p2: bool = False):
    cfg = fpn_cfg(top_block_in=top_block_in)
    cfg.MODEL.FPN.BOTTOM_UP = "build_regnet_backbone"
    # Four stages of widths 8, 16, 48 and 112.
    cfg.MODEL.REGNET.W_0, cfg.MODEL.REGNET.W_A, cfg.MODEL.REGNET.W_M = 8, 18.0, 2.4
    cfg.MODEL.REGNET.DEPTH, cfg.MODEL.REGNET.GROUP_WIDTH, cfg.MODEL.REGNET.STEM_WIDTH = 8, 8, 8
    features = ["s1", "s2", "s3", "s4"][0 if with_p2 else 1 :]
    cfg.MODEL.REGNET.OUT_FEATURES = features
    cfg.MODEL.FPN.IN_FEATURES = features
    return cfg


def levels_of(cfg) -> dict[str, tuple[int, ...]]:
    """Shapes of the levels for an image of 128 x 64, checked against the promised ones."""
    backbone = build_backbone(cfg).eval()
    with torch.no_grad():
        maps = backbone(torch.zeros(1, 3, 128, 64))
    shapes = backbone.output_shape()
    for name, level in maps.items():
        assert level.shape[1] == shapes[name].channels == CHANNELS
        assert shapes[name].stride == 2 ** int(name[1:])
    return {name: tuple(level.shape[2:]) for name, level in maps.items()}


SHAPES = {"p3": (16, 8), "p4": (8, 4), "p5": (4, 2), "p6": (2, 1), "p7": (1, 1)}


@pytest.mark.parametrize("depth", [18, 50])
@pytest.mark.parametrize("top_block_in", ["c5", "p5"])
@pytest.mark.parametrize("with_p2", [False, True])
def test_levels_of_a_resnet_pyramid(depth: int, top_block_in: str, with_p2: bool):
    levels = levels_of(fpn_cfg(depth, top_block_in, with_p2))
    assert levels == {**({"p2": (32, 16)} if with_p2 else {}), **SHAPES}


@pytest.mark.parametrize("top_block_in", ["c5", "p5"])
@pytest.mark.parametrize("with_p2", [False, True])
def test_levels_of_a_regnet_pyramid(top_block_in: str, with_p2: bool):
    levels = levels_of(regnet_cfg(top_block_in, with_p2))
    assert levels == {**({"p2": (32, 16)} if with_p2 else {}), **SHAPES}


def test_with_a_resnet_it_is_detectron2s_retinanet_backbone():
    cfg = fpn_cfg()
    torch.manual_seed(0)
    ours = build_backbone(cfg).eval()
    cfg.MODEL.BACKBONE.NAME = "build_retinanet_resnet_fpn_backbone"
    torch.manual_seed(0)
    theirs = build_backbone(cfg).eval()
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        for name, expected in theirs(image).items():
            torch.testing.assert_close(ours(image)[name], expected, rtol=0, atol=0)


@pytest.mark.parametrize("make_cfg", [fpn_cfg, regnet_cfg])
@pytest.mark.parametrize("top_block_in", ["c5", "p5"])
def test_p6_is_computed_from_what_the_key_says(make_cfg, top_block_in: str):
    cfg = make_cfg(top_block_in=top_block_in)
    backbone = build_backbone(cfg).eval()
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        maps = backbone(image)
        c5 = backbone.bottom_up(image)[cfg.MODEL.FPN.IN_FEATURES[-1]]
        source = c5 if top_block_in == "c5" else maps["p5"]
        p6 = backbone.top_block.p6
        torch.testing.assert_close(maps["p6"], F.conv2d(source, p6.weight, p6.bias, 2, 1))


def test_default_regnet_is_regnetx_4gf():
    cfg = get_cfg()
    cfg.MODEL.BACKBONE.NAME = "build_regnet_backbone"
    backbone = build_backbone(cfg)
    # Stages of the paper's RegNetX-4.0GF: widths 80, 240, 560, 1360 and depths 2, 5, 14, 2.
    widths = {name: shape.channels for name, shape in backbone.output_shape().items()}
    assert widths == {"s2": 240, "s3": 560, "s4": 1360}
    depths = [len(list(stage.children())) for stage, _ in backbone.stages_and_names]
    assert depths == [2, 5, 14, 2]
    # FREEZE_AT is 2: the stem and the first stage stay as they are.
    learning = {name.split(".")[0] for name, p in backbone.named_parameters() if p.requires_grad}
    assert learning == {"s2", "s3", "s4"}


@pytest.mark.parametrize("make_cfg", [fpn_cfg, regnet_cfg])
@pytest.mark.parametrize("top_block_in", ["c5", "p5"])
def test_a_detector_on_p2_to_p7_takes_a_training_step(make_cfg, top_block_in: str):
    cfg = make_cfg(top_block_in=top_block_in, with_p2=True)
    cfg.MODEL.META_ARCHITECTURE = "RetinaNetExt"
    cfg.MODEL.BACKBONE.FREEZE_AT = 0
    cfg.MODEL.ANCHOR_GENERATOR.NAME = "RetinaNetAnchorGenerator"
    cfg.MODEL.ANCHOR_GENERATOR.OCTAVE_BASE_SIZES = [8.0, 16.0, 32.0, 64.0, 128.0, 256.0]
    cfg.MODEL.RETINANET.IN_FEATURES = ["p2", "p3", "p4", "p5", "p6", "p7"]
    cfg.MODEL.RETINANET.NUM_CLASSES = 2
    cfg.MODEL.RETINANET.NUM_CONVS = 1
    validate_cfg(cfg)
    torch.manual_seed(0)
    model = build_model(cfg).train()
    gt = Instances((64, 64))
    gt.gt_boxes = Boxes(torch.tensor([[4.0, 4, 40, 50], [10.0, 8, 20, 18]]))
    gt.gt_classes = torch.tensor([0, 1])
    losses = model([{"image": torch.rand(3, 64, 64) * 255, "instances": gt}])
    assert all(loss.isfinite() and loss > 0 for loss in losses.values())
    sum(losses.values()).backward()
    missing = [k for k, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert missing == []
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.requires_grad)


def test_any_registered_network_can_be_underneath():
    @BACKBONE_REGISTRY.register()
    class PoolingPyramid(Backbone):
        def __init__(self, cfg, input_shape):
            super().__init__()
            self._out_features = ["a", "b"]
            self._out_feature_channels = {"a": 3, "b": 3}
            self._out_feature_strides = {"a": 8, "b": 16}

        def forward(self, x):
            return {"a": F.avg_pool2d(x, 8), "b": F.avg_pool2d(x, 16)}

    cfg = fpn_cfg(top_block_in="p5")
    cfg.MODEL.FPN.BOTTOM_UP = "PoolingPyramid"
    cfg.MODEL.FPN.IN_FEATURES = ["a", "b"]
    assert list(levels_of(cfg)) == ["p3", "p4", "p5", "p6"]  # two levels on top of the last


def test_nonsense_is_refused_by_name():
    cfg = fpn_cfg(top_block_in="res5")
    with pytest.raises(ValueError, match=r"TOP_BLOCK_IN is 'res5'.*c5, p5"):
        build_backbone(cfg)
    with pytest.raises(ValueError, match=r"TOP_BLOCK_IN is 'res5'"):
        validate_cfg(cfg)
    cfg = fpn_cfg()
    cfg.MODEL.FPN.BOTTOM_UP = "build_resnet_backbon"
    with pytest.raises(KeyError, match=r"Did you mean 'build_resnet_backbone'"):
        validate_cfg(cfg)
    cfg.MODEL.FPN.BOTTOM_UP = cfg.MODEL.BACKBONE.NAME
    with pytest.raises(ValueError, match=r"BOTTOM_UP is 'build_fpn_backbone_p6p7', the pyramid"):
        validate_cfg(cfg)
    cfg = regnet_cfg()
    cfg.MODEL.FPN.IN_FEATURES = ["res3", "s3"]
    with pytest.raises(ValueError, match=r"IN_FEATURES is \['res3', 's3'\].*gives s2, s3, s4"):
        build_backbone(cfg)
    cfg = fpn_cfg(top_block_in="p5")
    cfg.MODEL.BACKBONE.NAME = "build_retinanet_resnet_fpn_backbone"
    with pytest.raises(
        ValueError,
        match=r"TOP_BLOCK_IN is 'p5', but MODEL.BACKBONE.NAME is .build_retina.* not read it",
    ):
        validate_cfg(cfg)
