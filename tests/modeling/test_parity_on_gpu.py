"""On a GPU, RetinaNetExt gives the losses, gradients and detections of Detectron2's RetinaNet."""

from __future__ import annotations

import pytest
import torch
from detectron2.config import CfgNode
from detectron2.structures import Boxes, Instances
from torch import nn

from tests.helpers.parity import (
    ZOO,
    Batch,
    assert_same_boxes,
    assert_same_losses,
    assert_same_training,
    build_pair,
    detections,
    losses_and_gradients,
    make_batch,
    small_cfg,
)

pytestmark = pytest.mark.cuda


def assert_same_detections(theirs: nn.Module, ours: nn.Module, batch: Batch) -> None:
    for got, expected in zip(detections(ours, batch), detections(theirs, batch), strict=True):
        assert_same_boxes(got, expected)


def assert_equal_models(cfg: CfgNode, device: torch.device) -> None:
    theirs, ours = build_pair(cfg)
    assert ours.device.type == device.type
    batch = make_batch(cfg.MODEL.RETINANET.NUM_CLASSES)
    assert_same_detections(theirs, ours, batch)
    assert_same_losses(theirs, ours, batch)
    assert_same_training(theirs.double(), ours.double(), batch)


@pytest.mark.parametrize("kind", ["smooth_l1", "giou", "diou", "ciou"])
def test_every_box_loss(gpu: torch.device, kind: str):
    assert_equal_models(small_cfg(device=gpu, BBOX_REG_LOSS_TYPE=kind), gpu)


def test_settings_of_the_losses(gpu: torch.device):
    settings = {"SMOOTH_L1_LOSS_BETA": 0.11, "FOCAL_LOSS_ALPHA": 0.6, "FOCAL_LOSS_GAMMA": 1.5}
    assert_equal_models(small_cfg(device=gpu, **settings), gpu)


@pytest.mark.parametrize("norm", ["GN", "BN"])
def test_head_norms(gpu: torch.device, norm: str):
    theirs, ours = build_pair(small_cfg(device=gpu, NORM=norm))
    batch = make_batch(7)
    assert_same_detections(theirs, ours, batch)
    # In float64, since the gradient of a bias before a norm is 0: in float32 mere rounding noise.
    assert_same_training(theirs.double(), ours.double(), batch)


def test_gradients_in_float32(gpu: torch.device):
    cfg = small_cfg(device=gpu)
    cfg.MODEL.SPEEDUPS.FOLD_FROZEN_BN = False  # rounds in another order
    cfg.MODEL.RETINANET.SMOOTH_L1_LOSS_BETA = 1.0  # else the sign of an error near 0 is rounding
    cfg.MODEL.SPEEDUPS.CHANNELS_LAST = "none"
    theirs, ours = build_pair(cfg)
    _, expected = losses_and_gradients(theirs, make_batch(7))
    _, gradients = losses_and_gradients(ours, make_batch(7))
    assert gradients.keys() == expected.keys()
    for name, value in expected.items():
        assert value.dtype == torch.float32 and value.device.type == gpu.type
        assert (gradients[name] - value).abs().max() <= 1e-4 * value.abs().max(), name


def test_running_normalizer_over_steps(gpu: torch.device):
    theirs, ours = build_pair(small_cfg(device=gpu))
    assert_same_losses(theirs, ours, make_batch(7), steps=4)
    assert ours.loss_normalizer.mean.item() == pytest.approx(theirs.loss_normalizer, rel=1e-6)


def test_batch_without_any_object(gpu: torch.device):
    theirs, ours = build_pair(small_cfg(device=gpu))
    batch = make_batch(7)[1:2]
    expected, _ = losses_and_gradients(theirs, batch)
    losses, gradients = losses_and_gradients(ours, batch)
    torch.testing.assert_close(losses["loss_cls"], expected["loss_cls"], rtol=1e-5, atol=0)
    assert losses["loss_box_reg"] == 0
    assert gradients.keys() == {k for k, p in ours.named_parameters() if p.requires_grad}


def test_r50_fpn_of_detectron2(gpu: torch.device):
    cfg = small_cfg(ZOO / "COCO-Detection" / "retinanet_R_50_FPN_1x.yaml", device=gpu)
    theirs, ours = build_pair(cfg)
    gt = Instances((256, 320))
    gt.gt_boxes = Boxes(torch.tensor([[20.0, 30, 120, 200], [150, 40, 310, 250], [5, 5, 40, 60]]))
    gt.gt_classes = torch.tensor([0, 79, 33])
    image = torch.randint(0, 256, (3, 256, 320), dtype=torch.uint8)
    batch = [{"image": image, "instances": gt, "height": 512, "width": 640}]
    assert_same_detections(theirs, ours, batch)
    assert_same_losses(theirs, ours, batch)
