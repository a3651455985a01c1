"""What is put into a file computes what the detector computes, in plain layers."""

from __future__ import annotations

import pytest
import torch
from detectron2.layers import FrozenBatchNorm2d
from detectron2.modeling import build_model
from torch import nn

from retinanet_ext.export.compare import compare_sets
from retinanet_ext.export.graph.module import ExportableRetinaNet
from retinanet_ext.export.graph.network import plain_copy
from retinanet_ext.export.reference import instances_of
from retinanet_ext.modeling.speedups.settings import FastConv2d, FastNormConv2d
from tests.helpers.parity import spread_predictions
from tests.helpers.tiny import tiny_cfg

SIZES = [(2, 64, 96), (1, 33, 47), (3, 100, 70)]


def build(keys=None, **retinanet) -> nn.Module:
    torch.manual_seed(0)
    model = build_model(tiny_cfg(keys=keys, **retinanet))
    spread_predictions(model)
    return model


def pixels(count: int, height: int, width: int) -> torch.Tensor:
    return torch.rand(count, 3, height, width) * 255


@pytest.mark.parametrize("norm", ["FrozenBN", "BN"])
def test_norms_go_into_the_kernels(norm):
    model = build({"MODEL.RESNETS.NORM": norm, "MODEL.FPN.NORM": "BN"}, NORM="GN")
    for module in model.modules():
        if isinstance(module, (nn.BatchNorm2d, FrozenBatchNorm2d)):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    copied = plain_copy(model.backbone)
    images = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        expected, got = model.backbone(images), copied(images)
    for name, level in expected.items():
        torch.testing.assert_close(got[name], level, rtol=1e-4, atol=1e-4)
    kinds = {type(x) for x in copied.modules()}
    assert not kinds & {nn.BatchNorm2d, FrozenBatchNorm2d}
    assert kinds & {FastConv2d, FastNormConv2d} == set()
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"QUALITY_BRANCH": "iou"},
        {"CLS_AGNOSTIC_BBOX_REG": False},
        {"NMS_KIND": "class_agnostic"},
        {"BBOX_REG_WEIGHTS": (2.0, 2.0, 1.0, 1.0)},
    ],
    ids=str,
)
@pytest.mark.parametrize("head", ["decoded", "nms"])
def test_it_finds_what_the_detector_finds_at_any_size(settings, head):
    model = build(**settings)
    module = ExportableRetinaNet(model, head).eval()
    for size in SIZES:
        images = pixels(*size)
        inputs = [{"image": image} for image in images]
        expected = model.candidates(inputs)
        if head == "nms":
            expected = [model.decoder.suppress(x) for x in expected]
        with torch.no_grad():
            outputs = [x.numpy() for x in module(images)]
        got = instances_of(dict(zip(module.output_names, outputs, strict=True)), size[1:])
        found = compare_sets(expected, got, edge=0.05, most=100)
        assert found.count > 20 and found.missing == 0


def test_raw_outputs_are_named_and_padded_in_the_graph():
    model = build(QUALITY_BRANCH="centerness")
    module = ExportableRetinaNet(model, "raw").eval()
    with torch.no_grad():
        outputs = dict(zip(module.output_names, module(pixels(2, 33, 65)), strict=True))
    assert list(outputs)[:4] == ["logits_0", "deltas_0", "quality_0", "logits_1"]
    assert outputs["logits_0"].shape == (2, 9, 8, 12)  # of 64 x 96 px
    assert outputs["quality_4"].shape == (2, 3, 1, 1)
