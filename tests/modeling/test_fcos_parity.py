"""FCOS by config keys gives the numbers of Detectron2's FCOS, which exists in Python only."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from detectron2.modeling.meta_arch.fcos import FCOS, FCOSHead
from torch import nn

from retinanet_ext import get_cfg, load_config_file, validate_cfg
from retinanet_ext.modeling import LossNormalizer
from tests.helpers.parity import (
    assert_same_detections,
    losses_and_gradients,
    make_batch,
    spread_predictions,
)

K = 7
NAMES = {"loss_fcos_cls": "loss_cls", "loss_fcos_loc": "loss_box_reg"}
NAMES["loss_fcos_ctr"] = "loss_quality"


def fcos_cfg(**retinanet: Any) -> CfgNode:
    cfg = get_cfg()
    load_config_file(cfg, "configs/fcos_R_50_FPN_1x.yaml")
    cfg.MODEL.DEVICE, cfg.MODEL.WEIGHTS = "cpu", ""
    cfg.MODEL.RESNETS.DEPTH, cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 18, 64
    cfg.MODEL.FPN.OUT_CHANNELS = 32
    cfg.MODEL.RETINANET.NUM_CLASSES, cfg.MODEL.RETINANET.NUM_CONVS = K, 2
    cfg.TEST.DETECTIONS_PER_IMAGE = 1000
    for key, value in retinanet.items():
        cfg.MODEL.RETINANET[key] = value
    return cfg


def build_pair(cfg: CfgNode) -> tuple[FCOS, nn.Module]:
    """Detectron2's FCOS and ours with the same weights."""
    torch.manual_seed(0)
    ours = build_model(cfg)
    spread_predictions(ours)
    # Its first number is no key, since training forgets it after some tens of iterations.
    ours.loss_normalizer = LossNormalizer(initial=300)
    node, shapes = cfg.MODEL.RETINANET, build_model(cfg).backbone.output_shape()
    input_shape = [shapes[name] for name in node.IN_FEATURES]
    theirs = FCOS(
        backbone=build_model(cfg).backbone,
        head=FCOSHead(
            input_shape=input_shape,
            num_classes=K,
            conv_dims=[cfg.MODEL.FPN.OUT_CHANNELS] * node.NUM_CONVS,
            norm=node.NORM,
        ),
        head_in_features=list(node.IN_FEATURES),
        num_classes=K,
        test_score_thresh=node.SCORE_THRESH_TEST,
        max_detections_per_image=cfg.TEST.DETECTIONS_PER_IMAGE,
        pixel_mean=cfg.MODEL.PIXEL_MEAN,
        pixel_std=cfg.MODEL.PIXEL_STD,
    )
    weights = {k.replace("quality_pred", "ctrness"): v for k, v in ours.state_dict().items()}
    del weights["loss_normalizer.mean"]
    theirs.load_state_dict(weights)
    return theirs, ours


def test_losses_and_gradients_equal_detectron2s_fcos():
    theirs, ours = build_pair(fcos_cfg())
    batch = make_batch(K)
    expected, expected_gradients = losses_and_gradients(theirs.double(), batch, steps=2)
    losses, gradients = losses_and_gradients(ours.double(), batch, steps=2)
    assert losses.keys() == set(NAMES.values())
    for name, value in expected.items():
        assert value > 0
        torch.testing.assert_close(losses[NAMES[name]].double(), value.double(), rtol=1e-6, atol=0)
    for name, value in expected_gradients.items():
        tolerance = 1e-5 * value.abs().max() + 1e-12
        got = gradients[name.replace("ctrness", "quality_pred")]
        assert (got - value).abs().max() <= tolerance, name


def test_detections_equal_detectron2s_fcos():
    theirs, ours = build_pair(fcos_cfg(SCORE_THRESH_TEST=0.3))
    assert_same_detections(theirs, ours, make_batch(K))


def test_candidates_by_class_are_others():
    """So that the test before this one sees the key."""
    theirs, ours = build_pair(fcos_cfg(SCORE_THRESH_TEST=0.3, CANDIDATES_BY="class"))
    with pytest.raises(AssertionError):
        assert_same_detections(theirs, ours, make_batch(K))


@pytest.mark.parametrize("name", ["fcos_R_50_FPN_1x", "quickstart_fcos"])
def test_the_configs_are_accepted(name: str):
    cfg = get_cfg()
    load_config_file(cfg, f"configs/{name}.yaml")
    cfg.MODEL.DEVICE = "cpu"
    validate_cfg(cfg)


def test_candidates_by_score_without_a_quality_branch_are_refused():
    cfg = fcos_cfg(QUALITY_BRANCH="")
    with pytest.raises(ValueError, match=r"CANDIDATES_BY.*QUALITY_BRANCH"):
        validate_cfg(cfg)
