"""Networks of timm by name: on a module that stands for timm, and on timm where it is installed."""

from __future__ import annotations

import importlib.util
import sys
import types
from typing import Any

import pytest
import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_backbone, build_model
from torch import nn

from retinanet_ext import UserError, get_cfg, validate_cfg
from retinanet_ext.engine.optim.freeze import freeze
from retinanet_ext.engine.optim.layer_decay import layer_lr_factors
from retinanet_ext.modeling import TimmBackbone
from tests.modeling.test_retinanet import example

HAS_TIMM = importlib.util.find_spec("timm") is not None
needs_timm = pytest.mark.skipif(not HAS_TIMM, reason="timm is not installed: pip install timm")


class Info:
    def __init__(self, strides: list[int], channels: list[int]):
        self.strides, self.widths = strides, channels

    def reduction(self) -> list[int]:
        return self.strides

    def channels(self) -> list[int]:
        return self.widths


class Network(nn.Module):
    """What timm makes with features_only: one convolution for each output."""

    def __init__(self, strides: list[int], output_fmt: str = "NCHW", in_chans: int = 3):
        super().__init__()
        widths = [4 * (i + 1) for i, _ in enumerate(strides)]
        self.feature_info, self.output_fmt = Info(strides, widths), output_fmt
        self.stages = nn.ModuleList(
            nn.Conv2d(in_chans, width, stride, stride)
            for width, stride in zip(widths, strides, strict=True)
        )

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        maps = [stage(x) for stage in self.stages]
        return [x.permute(0, 2, 3, 1) if self.output_fmt == "NHWC" else x for x in maps]


STRIDES = {"plain": [2, 4, 8, 16, 32], "windows": [4, 8, 16, 32], "vit_patch14": [14, 14]}


@pytest.fixture
def fake_timm(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """A module called timm; returns what networks are asked for."""
    asked: list[dict[str, Any]] = []

    def create_model(name: str, **options: Any) -> Network:
        if "strict_img_size" in options and name != "windows":
            raise TypeError("__init__() got an unexpected keyword argument 'strict_img_size'")
        if "dynamic_img_size" in options:
            raise TypeError("__init__() got an unexpected keyword argument 'dynamic_img_size'")
        asked.append({"name": name, **options})
        strides = STRIDES[name.partition(".")[0]]
        chosen = [strides[i] for i in options.get("out_indices", range(len(strides)))]
        return Network(chosen, "NHWC" if name == "windows" else "NCHW", options["in_chans"])

    module = types.ModuleType("timm")
    module.create_model = create_model
    module.is_model = lambda name: name.partition(".")[0] in STRIDES
    module.list_models = lambda: list(STRIDES)
    statistics = types.SimpleNamespace(mean=(0.5, 0.5, 0.5), std=(0.2, 0.2, 0.2))
    module.get_pretrained_cfg = lambda name: statistics
    monkeypatch.setitem(sys.modules, "timm", module)
    return asked


def timm_cfg(name: str, **keys: Any) -> CfgNode:
    cfg = get_cfg()
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.META_ARCHITECTURE = "RetinaNetExt"
    cfg.MODEL.BACKBONE.NAME = "build_timm_fpn_p6p7"
    cfg.MODEL.FPN.IN_FEATURES = ["c3", "c4", "c5"]
    cfg.MODEL.FPN.OUT_CHANNELS = 16
    cfg.MODEL.ANCHOR_GENERATOR.NAME = "RetinaNetAnchorGenerator"
    cfg.MODEL.RETINANET.NUM_CLASSES, cfg.MODEL.RETINANET.NUM_CONVS = 3, 1
    cfg.MODEL.TIMM.NAME = name
    for key, value in keys.items():
        cfg.MODEL.TIMM[key] = value
    return cfg


def check_levels(cfg: CfgNode) -> None:
    """P3 to P7, strides 8 to 128, in the shapes that an image of 128 x 96 gives."""
    backbone = build_backbone(cfg).eval()
    with torch.no_grad():
        maps = backbone(torch.zeros(1, 3, 128, 96))
    shapes = backbone.output_shape()
    assert [(k, shapes[k].stride) for k in maps] == [(f"p{i}", 2**i) for i in range(3, 8)]
    for name, level in maps.items():
        stride = shapes[name].stride
        assert level.shape[1:] == (16, -(-128 // stride), -(-96 // stride)), name


@pytest.mark.parametrize("name", ["plain", "windows"])
def test_it_is_a_pyramid_from_8_to_128(name: str, fake_timm: list):
    check_levels(timm_cfg(name))
    (asked,) = fake_timm
    assert asked["features_only"] and not asked["pretrained"] and asked["in_chans"] == 3
    assert asked.get("strict_img_size", True) is (name != "windows")  # images of any size


def test_a_model_on_it_trains(fake_timm: list):
    cfg = timm_cfg("windows")
    assert validate_cfg(cfg) == []
    losses = build_model(cfg).train()([example()])
    sum(losses.values()).backward()
    assert all(x.isfinite() for x in losses.values())


def test_maps_with_channels_last_are_permuted():
    network = Network([8, 16], "NHWC")
    backbone, image = TimmBackbone(network, "windows"), torch.rand(2, 3, 32, 48)
    maps = backbone(image)
    assert {name: tuple(x.shape) for name, x in maps.items()} == {
        "c3": (2, 4, 4, 6),
        "c4": (2, 8, 2, 3),
    }
    for got, stage in zip(maps.values(), network.stages, strict=True):
        torch.testing.assert_close(got, stage(image), rtol=0, atol=1e-5)


def test_outputs_are_chosen_by_timms_numbers_and_the_last_of_a_stride_counts(fake_timm: list):
    cfg = timm_cfg("plain", OUT_INDICES=[2, 3])
    cfg.MODEL.BACKBONE.NAME = "build_timm_backbone"
    assert list(build_backbone(cfg).output_shape()) == ["c3", "c4"]
    assert fake_timm[-1]["out_indices"] == (2, 3)
    twice = TimmBackbone(Network([8, 8, 16]), "twice")
    assert twice.output_shape()["c3"].channels == 8  # of the second


def test_strides_that_are_no_power_of_two_are_refused_by_name(fake_timm: list):
    with pytest.raises(UserError, match=r"'vit_patch14'.*strides of 14 pixels.*powers of two"):
        build_backbone(timm_cfg("vit_patch14"))


def test_outputs_that_are_no_maps_are_refused():
    with pytest.raises(UserError, match="'tokens', whose outputs are NLC"):
        TimmBackbone(Network([16], "NLC"), "tokens")


def test_without_timm_one_sentence_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    for check in (validate_cfg, build_backbone):
        with pytest.raises(UserError, match=r"needs the package timm.*pip install timm$"):
            check(timm_cfg("plain"))


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"NAME": ""}, "NAME is ''"),
        ({"NAME": "windws"}, "Did you mean 'windows'"),
        ({"CHECKPOINT": "nowhere.pth"}, "CHECKPOINT is 'nowhere.pth', which is no file"),
        ({"CHECKPOINT": "a.pth", "PRETRAINED": True}, "two kinds of weights; set one"),
    ],
)
def test_settings_that_cannot_work_are_refused(keys: dict, words: str, fake_timm: list):
    with pytest.raises(UserError, match=words):
        validate_cfg(timm_cfg(**{"name": keys.pop("NAME", "plain")}, **keys))


def test_a_level_that_the_network_lacks_is_refused_with_those_that_it_has(fake_timm: list):
    with pytest.raises(UserError, match="plain gives c4, c5"):
        build_backbone(timm_cfg("plain", OUT_INDICES=[3, 4]))


def test_pretrained_weights_want_their_own_pixels(fake_timm: list):
    cfg = timm_cfg("plain", PRETRAINED=True)
    with pytest.raises(UserError, match=r"TIMM.PRETRAINED is True with the weights of plain, tr"):
        validate_cfg(cfg)
    cfg.INPUT.FORMAT = "RGB"
    cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD = [127.5] * 3, [51.0] * 3
    assert validate_cfg(cfg) == []
    build_backbone(cfg)
    assert fake_timm[-1]["pretrained"]


def test_weights_of_the_whole_model_take_the_place_of_timms(fake_timm: list, tmp_path):
    path = tmp_path / "plain.pth"
    path.touch()
    cfg = timm_cfg("plain", CHECKPOINT=str(path))
    build_backbone(cfg)
    assert fake_timm[-1]["pretrained"]
    assert fake_timm[-1]["pretrained_cfg_overlay"] == {"file": str(path)}
    cfg.MODEL.WEIGHTS = "model_final.pth"
    build_backbone(cfg)
    assert not fake_timm[-1]["pretrained"] and "pretrained_cfg_overlay" not in fake_timm[-1]


def test_layers_decay_and_the_network_freezes(fake_timm: list):
    model = build_model(timm_cfg("windows"))
    factors = layer_lr_factors(model, 0.5)
    assert factors["backbone.bottom_up.body.stages.0.weight"] == 0.5**4
    assert factors["backbone.bottom_up.body.stages.3.weight"] == 0.5
    freeze(model, ["backbone"])
    assert not any(p.requires_grad for p in model.backbone.bottom_up.parameters())
    assert model.backbone.fpn_output3.weight.requires_grad


# --- timm itself


@needs_timm
@pytest.mark.parametrize(
    "name", ["convnext_atto", "mobilenetv3_small_050", "swin_tiny_patch4_window7_224"]
)
def test_networks_of_timm_are_pyramids_from_8_to_128(name: str):
    check_levels(timm_cfg(name))


@needs_timm
def test_a_network_of_timm_gives_what_timm_itself_computes():
    import timm

    torch.manual_seed(0)
    name = "swin_tiny_patch4_window7_224"
    network = timm.create_model(name, features_only=True, strict_img_size=False).eval()
    whole = timm.create_model(name, strict_img_size=False).eval()
    flat = network.state_dict()
    renamed = {k.replace("layers.", "layers_"): v for k, v in whole.state_dict().items()}
    network.load_state_dict({k: renamed[k] for k in flat})
    image = torch.rand(1, 3, 128, 96)
    with torch.no_grad():
        c5 = TimmBackbone(network, name)(image)["c5"]
        got = whole.norm(c5.permute(0, 2, 3, 1))
        torch.testing.assert_close(got, whole.forward_features(image), rtol=0, atol=1e-5)


@needs_timm
def test_a_dino_of_14_pixels_is_refused_by_name():
    with pytest.raises(UserError, match=r"vit_small_patch14_dinov2.*14 pixels"):
        build_backbone(timm_cfg("vit_small_patch14_dinov2"))
