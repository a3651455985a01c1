"""The proposal generator made of our parts, beside Detectron2's RPN and inside its detectors."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_backbone, build_model
from detectron2.modeling.proposal_generator import RPN
from detectron2.structures import Boxes, ImageList, Instances
from detectron2.utils.events import EventStorage

from retinanet_ext import UserError, get_cfg, load_config_file, validate_cfg
from retinanet_ext.modeling import DenseRPN

CONFIG = "configs/quickstart_faster_rcnn_dense_rpn.yaml"
SIZES = [(32, 40), (16, 20), (8, 10), (4, 5), (2, 3)]
N, BATCH_SIZE = 2, 256
# With these keys of MODEL.RETINANET, losses are those of an RPN that uses all anchors.
WITH_ALL_ANCHORS: dict[str, Any] = {
    "LOSS_NORMALIZER": "constant",
    "LOSS_NORMALIZER_VALUE": float(BATCH_SIZE * N),
    "IOU_THRESHOLDS": [0.3, 0.7],
    "SMOOTH_L1_LOSS_BETA": 0.0,
}


def dense_cfg(**retinanet: Any) -> CfgNode:
    cfg = get_cfg()
    load_config_file(cfg, CONFIG)
    cfg.MODEL.DEVICE = "cpu"
    for key, value in retinanet.items():
        cfg.MODEL.RETINANET[key] = value
    return cfg


def scene(count: int = 4) -> Instances:
    gt = Instances((128, 160))
    corner = torch.rand(count, 2) * torch.tensor([110.0, 80])
    gt.gt_boxes = Boxes(torch.cat([corner, corner + torch.rand(count, 2) * 40 + 8], dim=1))
    gt.gt_classes = torch.arange(count) % 5  # proposals know no classes
    return gt


class FixedHead(torch.nn.Module):
    """Says what it was given, and calls itself as both kinds of head are called."""

    def __init__(self, num_anchors: int):
        super().__init__()
        self.logits = [torch.randn(N, num_anchors, *s, requires_grad=True) for s in SIZES]
        self.deltas = [torch.randn(N, 4 * num_anchors, *s, requires_grad=True) for s in SIZES]

    def forward(self, features: list) -> tuple[list, list]:
        return self.logits, self.deltas


def build_pair(monkeypatch: pytest.MonkeyPatch) -> tuple[RPN, DenseRPN, dict, ImageList]:
    """Detectron2's RPN, all anchors in its loss, and ours with the same head and anchors."""
    torch.manual_seed(0)
    cfg = dense_cfg(**WITH_ALL_ANCHORS, CLS_LOSS="BCE", NORM="")
    features = {f"p{i}": torch.zeros(N, 64, *s) for i, s in enumerate(SIZES, start=2)}
    shapes = build_model(cfg).backbone.output_shape()
    ours = DenseRPN(cfg, shapes).train()
    cfg.MODEL.PROPOSAL_GENERATOR.NAME = "RPN"
    cfg.MODEL.RPN.BATCH_SIZE_PER_IMAGE = BATCH_SIZE
    theirs = RPN(cfg, shapes).train()
    monkeypatch.setattr(theirs, "_subsample_labels", lambda labels: labels)
    ours.head = theirs.rpn_head = FixedHead(theirs.anchor_generator.num_anchors[0])
    images = ImageList(torch.zeros(N, 3, 128, 160), [(128, 160), (100, 160)])
    return theirs, ours, features, images


def test_with_bce_and_all_anchors_losses_and_proposals_equal_detectron2s_rpn(
    monkeypatch: pytest.MonkeyPatch,
):
    theirs, ours, features, images = build_pair(monkeypatch)
    gt = [scene(), scene(2)]
    with EventStorage():
        expected_proposals, expected = theirs(images, features, gt)
        proposals, losses = ours(images, features, gt)
    assert losses.keys() == expected.keys() == {"loss_rpn_cls", "loss_rpn_loc"}
    for name, value in expected.items():
        assert value > 0.01
        torch.testing.assert_close(losses[name], value, rtol=1e-5, atol=0)
    gradients = []
    for of_rpn in (expected, losses):
        inputs = [*ours.head.logits, *ours.head.deltas]
        gradients.append(torch.autograd.grad(sum(of_rpn.values()), inputs, retain_graph=True))
    for want, got in zip(*gradients, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-9)
    for want, got in zip(expected_proposals, proposals, strict=True):
        assert len(want) > 50
        torch.testing.assert_close(got.objectness_logits, want.objectness_logits)
        boxes = (got.proposal_boxes.tensor, want.proposal_boxes.tensor)
        torch.testing.assert_close(*boxes, rtol=0, atol=1e-3)


@pytest.mark.parametrize("objects", [0, 3])
@pytest.mark.parametrize(
    "parts",
    [
        {},
        {"ASSIGNER": "ATSSAssigner", "BBOX_REG_LOSS_TYPE": "giou", "QUALITY_BRANCH": "iou"},
        {"CLS_LOSS": "OHEM", "BOX_CODER": "ltrb", "HEAD": "SharedTowerHead"},
        {"ASSIGNER": "TaskAlignedAssigner", "CLS_LOSS": "QualityFocalLoss"},
    ],
    ids=["default", "atss", "ohem", "task_aligned"],
)
def test_faster_rcnn_trains_with_parts_of_ours(parts: dict[str, Any], objects: int):
    cfg = dense_cfg(**parts)
    validate_cfg(cfg)
    torch.manual_seed(0)
    model = build_model(cfg).train()
    batch = [{"image": torch.randint(0, 256, (3, 128, 160)), "instances": scene(objects)}] * 2
    with EventStorage():
        losses = model(batch)
        sum(losses.values()).backward()
    assert all(x.isfinite() for x in losses.values()), losses
    assert ("loss_rpn_quality" in losses) == ("QUALITY_BRANCH" in parts)
    scores = model.proposal_generator.head.cls_score.weight.grad
    assert scores.isfinite().all() and scores.abs().sum() > 0
    with torch.no_grad():
        (found,) = model.eval()([{"image": torch.randint(0, 256, (3, 128, 160))}])
    assert found["instances"].pred_boxes.tensor.isfinite().all()


@pytest.mark.parametrize(
    ("key", "value", "meant"),
    [
        ("MODEL.RETINANET.NUM_CLASSES", 5, "MODEL.ROI_HEADS.NUM_CLASSES"),
        ("MODEL.RETINANET.IN_FEATURES", ["p3"], "MODEL.RPN.IN_FEATURES"),
        ("MODEL.RETINANET.NMS_THRESH_TEST", 0.6, "MODEL.RPN.NMS_THRESH"),
        ("MODEL.RPN.IOU_THRESHOLDS", [0.4, 0.6], "MODEL.RETINANET.IOU_THRESHOLDS"),
        ("MODEL.RPN.BATCH_SIZE_PER_IMAGE", 128, "MODEL.RETINANET.CLS_LOSS"),
        ("MODEL.RETINANET.CLS_AGNOSTIC_BBOX_REG", False, "set it to True"),
    ],
)
def test_a_key_that_it_does_not_read_is_refused(key: str, value: Any, meant: str):
    cfg = dense_cfg()
    cfg.merge_from_list([key, value])
    with pytest.raises(UserError, match=f"{key} is .*{meant}"):
        validate_cfg(cfg)


@pytest.mark.parametrize(
    "loss",
    [
        {"CLS_LOSS": "BCE"},
        {"CLS_LOSS": "FocalLoss", "FOCAL_LOSS_GAMMA": 0.0, "FOCAL_LOSS_ALPHA": -1.0},
    ],
    ids=["bce", "focal"],
)
@pytest.mark.parametrize(
    ("conv_dims", "cls_value", "box_value"),
    [([-1], 0.08011703193, 0.101470276), ([64] * 5, 0.08122821152, 0.10064548254)],
    ids=["one", "five"],
)
def test_the_numbers_of_detectron2s_own_test_of_its_rpn(
    conv_dims: list[int], cls_value: float, box_value: float, loss: dict[str, Any]
):
    # Its scene has fewer than 256 anchors, so that the RPN uses all of them.
    cfg = get_cfg()
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.META_ARCHITECTURE = "GeneralizedRCNN"
    for key, value in {**WITH_ALL_ANCHORS, **loss, "NUM_CONVS": 1}.items():
        cfg.MODEL.RETINANET[key] = value
    of_rpn = cfg.clone()
    of_rpn.MODEL.RPN.CONV_DIMS = conv_dims
    torch.manual_seed(121)
    shapes = build_backbone(of_rpn).output_shape()
    theirs = RPN(of_rpn, shapes)
    images = ImageList(torch.rand(2, 20, 30), [(10, 10), (20, 30)])
    features = {"res4": torch.rand(2, 1024, 1, 2)}
    objects = [Instances((15, 15)) for _ in range(2)]
    for gt, box in zip(objects, ([1.0, 1, 3, 3], [2.0, 2, 6, 6]), strict=True):
        gt.gt_boxes = Boxes(torch.tensor([box]))
    ours = DenseRPN(cfg, shapes)
    ours.head = theirs.rpn_head
    with EventStorage():
        proposals, losses = ours(images, features, objects)
    assert losses["loss_rpn_cls"].item() == pytest.approx(cls_value, rel=1e-5)
    assert losses["loss_rpn_loc"].item() == pytest.approx(box_value, rel=1e-5)
    if conv_dims == [-1]:
        want = torch.tensor([[0, 0, 10, 10], [7.2702, 0, 10, 10]])
        torch.testing.assert_close(proposals[0].proposal_boxes.tensor, want, rtol=0, atol=1e-3)
