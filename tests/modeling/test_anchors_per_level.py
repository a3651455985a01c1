"""Levels with different numbers of anchors, through the whole detector."""

from __future__ import annotations

import pytest
import torch
from detectron2.layers import FrozenBatchNorm2d
from detectron2.modeling import build_model
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.modeling.matcher import Matcher
from detectron2.modeling.meta_arch.retinanet import RetinaNet
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage
from torch import nn

from retinanet_ext import validate_cfg
from retinanet_ext.registry import DENSE_HEAD_REGISTRY
from tests.helpers.tiny import tiny_cfg

RATIOS = [[0.5, 1.0, 2.0], [0.5, 1.0, 2.0], [0.5, 1.0], [1.0], [1.0]]
SCALES = [2, 1, 1, 3, 1]
COUNTS = [6, 3, 2, 3, 1]


def uneven_cfg(**retinanet):
    keys = {
        "MODEL.BACKBONE.FREEZE_AT": 2,
        "MODEL.FPN.OUT_CHANNELS": 16,
        "MODEL.ANCHOR_GENERATOR.SCALES_OF_LEVELS": SCALES,
        "MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS": RATIOS,
    }
    cfg = tiny_cfg(keys=keys, **retinanet)
    validate_cfg(cfg)
    return cfg


def build(**retinanet):
    torch.manual_seed(0)
    model = build_model(uneven_cfg(**retinanet))
    for name, module in model.backbone.named_modules():
        if isinstance(module, FrozenBatchNorm2d) and name.endswith("conv2.norm"):
            module.weight.fill_(0.2)  # or an untrained network's activations explode
    return model


def with_predictions(model):
    """Give every anchor a prediction of its own, and some a high score."""
    torch.manual_seed(0)
    with torch.no_grad():
        for conv, mean, std in ((model.head.cls_score, -2, 1), (model.head.bbox_pred, 0, 0.2)):
            conv.weight.normal_(std=0.2 * std)
            conv.bias.normal_(mean, std)
    return model


def batch() -> list[dict]:
    generator = torch.Generator().manual_seed(1)
    inputs = []
    for count in (5, 0, 2):
        gt = Instances((96, 128))
        corner = torch.rand(count, 2, generator=generator) * 60
        size = 8 + torch.rand(count, 2, generator=generator) * 50
        gt.gt_boxes = Boxes(torch.cat([corner, corner + size], dim=1))
        gt.gt_classes = torch.randint(0, 3, (count,), generator=generator)
        image = torch.randint(0, 256, (3, 96, 128), generator=generator, dtype=torch.uint8)
        inputs.append({"image": image, "instances": gt, "height": 96, "width": 128})
    return inputs


def detectron2_model(ours) -> RetinaNet:
    """Detectron2's detector around the same backbone, head and anchors.

    It turns every level into rows before it joins them, so it is a reference for uneven levels.
    """
    return RetinaNet(
        backbone=ours.backbone,
        head=ours.head,
        head_in_features=ours.head_in_features,
        anchor_generator=ours.anchor_generator,
        box2box_transform=Box2BoxTransform((1.0, 1.0, 1.0, 1.0)),
        anchor_matcher=Matcher([0.4, 0.5], [0, -1, 1], allow_low_quality_matches=True),
        num_classes=3,
        smooth_l1_beta=0.1,
        pixel_mean=ours.pixel_mean.flatten().tolist(),
        pixel_std=ours.pixel_std.flatten().tolist(),
    )


def losses_and_gradients(model):
    model.train().zero_grad()
    with EventStorage():
        losses = model(batch())
        sum(losses.values()).backward()
    return losses, {k: p.grad.clone() for k, p in model.head.named_parameters()}


@pytest.mark.parametrize("kernel", ["auto", "reference"])
def test_training_step_equals_a_dense_reference(kernel: str):
    ours = with_predictions(build(LOSS_KERNEL=kernel)).double()
    expected, expected_gradients = losses_and_gradients(detectron2_model(ours).double())
    losses, gradients = losses_and_gradients(ours)
    for name, value in expected.items():
        assert value > 0
        torch.testing.assert_close(losses[name].double(), value.double(), rtol=1e-6, atol=0)
    for name, value in expected_gradients.items():
        tolerance = 1e-5 * value.abs().max()
        assert tolerance > 0
        assert (gradients[name] - value).abs().max() <= tolerance, name


def test_detections_equal_a_dense_reference():
    ours = with_predictions(build()).eval()
    theirs = detectron2_model(ours).eval()
    with torch.no_grad():
        for got, expected in zip(ours(batch()), theirs(batch()), strict=True):
            got, expected = got["instances"], expected["instances"]
            assert len(expected) > 5
            assert got.pred_classes.tolist() == expected.pred_classes.tolist()
            torch.testing.assert_close(got.scores, expected.scores, rtol=0, atol=1e-6)
            torch.testing.assert_close(got.pred_boxes.tensor, expected.pred_boxes.tensor)


def test_loss_falls():
    model = build().train()
    assert model.anchor_generator.num_anchors == model.head.level_anchors == COUNTS
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    totals = []
    for _ in range(3):
        total = sum(model(batch()).values())
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        totals.append(total.item())
    assert totals[0] > totals[1] > totals[2]


def test_logits_are_not_made_in_pieces():
    # That path gives every level all channels of cls_score.
    assert not build(FUSED_CLS_LOSS_MIN_CLASSES=0).fuse_cls_loss


def test_a_head_for_one_number_of_anchors_is_refused_by_name():
    @DENSE_HEAD_REGISTRY.register()
    class OneNumberHead(nn.Module):
        def __init__(self, cfg, input_shape, num_anchors: int):
            super().__init__()
            assert isinstance(num_anchors, int)

    cfg = uneven_cfg(HEAD="OneNumberHead")
    with pytest.raises(ValueError, match=r"\[6, 3, 2, 3, 1\].*OneNumberHead.*anchors_per_level"):
        build_model(cfg)
    cfg.MODEL.ANCHOR_GENERATOR.SCALES_OF_LEVELS = []
    cfg.MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS = [[1.0]]
    assert isinstance(build_model(cfg).head, OneNumberHead)
    cfg.MODEL.RETINANET.CLS_AGNOSTIC_BBOX_REG = False
    with pytest.raises(ValueError, match=r"CLS_AGNOSTIC_BBOX_REG is False.*OneNumberHead"):
        build_model(cfg)
