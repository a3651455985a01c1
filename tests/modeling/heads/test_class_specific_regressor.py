"""A box regressor for each class: training, inference, checkpoints."""

from __future__ import annotations

import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.modeling import build_model
from detectron2.structures import Boxes, Instances

from retinanet_ext import validate_cfg
from tests.helpers.tiny import tiny_cfg

K = 4


def build(agnostic: bool, head: str = "RetinaNetHead", seed: int = 0):
    keys = {
        "MODEL.BACKBONE.FREEZE_AT": 2,
        "MODEL.FPN.OUT_CHANNELS": 16,
        "MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS": [[1.0, 2.0]],
    }
    cfg = tiny_cfg(keys=keys, NUM_CLASSES=K, HEAD=head, CLS_AGNOSTIC_BBOX_REG=agnostic)
    validate_cfg(cfg)
    torch.manual_seed(seed)
    model = build_model(cfg)
    with torch.no_grad():
        model.head.cls_score.bias.normal_(mean=-2.0)  # so that there are detections
        model.head.bbox_pred.bias.normal_(std=0.2)
    return model


def batch(classes=(0, 1, 3)) -> list[dict]:
    generator = torch.Generator().manual_seed(1)
    gt = Instances((64, 96))
    corner = torch.rand(len(classes), 2, generator=generator) * 40
    size = 10 + torch.rand(len(classes), 2, generator=generator) * 20
    gt.gt_boxes = Boxes(torch.cat([corner, corner + size], dim=1))
    gt.gt_classes = torch.tensor(classes)
    image = torch.randint(0, 256, (3, 64, 96), generator=generator, dtype=torch.uint8)
    return [{"image": image, "instances": gt, "height": 64, "width": 96}]


def per_class(parameter: torch.Tensor) -> torch.Tensor:
    """Weight or bias of bbox_pred as (A, K, 4, ...)."""
    return parameter.unflatten(0, (-1, K, 4))


def copy_regressor(agnostic, specific) -> None:
    """Every class of ``specific`` gets the one regressor of ``agnostic``."""
    state = agnostic.state_dict()
    for name in ("head.bbox_pred.weight", "head.bbox_pred.bias"):
        anchors = state[name].unflatten(0, (-1, 1, 4))
        state[name] = anchors.expand(-1, K, *anchors.shape[2:]).flatten(0, 2)
    specific.load_state_dict(state)


@pytest.mark.parametrize("head", ["RetinaNetHead", "SharedTowerHead"])
def test_equal_regressors_are_the_class_agnostic_detector(head: str):
    agnostic, specific = build(True, head), build(False, head)
    copy_regressor(agnostic, specific)
    expected, losses = (model.train()(batch()) for model in (agnostic, specific))
    for name, value in expected.items():
        assert value > 0
        torch.testing.assert_close(losses[name], value)
        value.backward(retain_graph=True), losses[name].backward(retain_graph=True)
    # What the copies are taught adds up to what the one is.
    gradient = per_class(specific.head.bbox_pred.weight.grad).sum(dim=1)
    torch.testing.assert_close(gradient.flatten(0, 1), agnostic.head.bbox_pred.weight.grad)
    with torch.no_grad():
        want, got = (model.eval()(batch())[0]["instances"] for model in (agnostic, specific))
    assert len(want) > 5 and len(want.pred_classes.unique()) > 1
    assert got.pred_classes.tolist() == want.pred_classes.tolist()
    torch.testing.assert_close(got.pred_boxes.tensor, want.pred_boxes.tensor, rtol=0, atol=1e-3)


@pytest.mark.parametrize("head", ["RetinaNetHead", "SharedTowerHead"])
def test_only_the_regressor_of_the_true_class_learns(head: str):
    model = build(False, head).train()
    model(batch(classes=(1, 1)))["loss_box_reg"].backward()
    for parameter in (model.head.bbox_pred.weight, model.head.bbox_pred.bias):
        taught = [bool(x.any()) for x in per_class(parameter.grad).unbind(1)]
        assert taught == [False, True, False, False]


def test_a_detection_has_the_box_of_its_class():
    model = build(False).eval()
    with torch.no_grad():
        model.head.bbox_pred.weight.zero_()
        # Boxes of class k are 2^k times as high as their anchors, whose ratios are 1 and 2.
        per_class(model.head.bbox_pred.bias)[:] = 0
        per_class(model.head.bbox_pred.bias)[..., 3] = torch.arange(K) * torch.log(
            torch.tensor(2.0)
        )
        found = model(batch())[0]["instances"]
    raw = found.pred_boxes.tensor
    assert len(found.pred_classes.unique()) > 1
    inside = (raw[:, 1] > 0) & (raw[:, 3] < 64) & (raw[:, 0] > 0) & (raw[:, 2] < 96)  # not clipped
    assert inside.sum() > 3
    width, height = (raw[:, 2:] - raw[:, :2])[inside].unbind(1)
    ratio = (height / width / 2 ** found.pred_classes[inside]).log2()
    torch.testing.assert_close(ratio, ratio.round(), rtol=0, atol=1e-3)
    assert set(ratio.round().tolist()) <= {0.0, 1.0}


def test_a_checkpoint_brings_the_detections_back(tmp_path):
    model, other = build(False).eval(), build(False, seed=1).eval()
    DetectionCheckpointer(model, str(tmp_path)).save("model")
    with torch.no_grad():
        want, before = model(batch())[0]["instances"], other(batch())[0]["instances"]
        DetectionCheckpointer(other).load(str(tmp_path / "model.pth"))
        got = other(batch())[0]["instances"]
    assert before.scores.tolist() != want.scores.tolist()
    assert got.scores.tolist() == want.scores.tolist()
    assert torch.equal(got.pred_boxes.tensor, want.pred_boxes.tensor)
