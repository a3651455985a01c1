"""Detectron2's python config of its RetinaNet builds ours by its ``_target_``, nothing else."""

from __future__ import annotations

import pytest
import torch
from detectron2.config import LazyCall as L
from detectron2.config import LazyConfig, instantiate
from detectron2.model_zoo import get_config
from detectron2.modeling.matcher import Matcher
from omegaconf import OmegaConf

from retinanet_ext.modeling import L1, IoUAssigner, RetinaNetExt
from retinanet_ext.modeling.assigners.detectron2_matcher import MatcherAssigner
from tests.helpers.parity import (
    assert_same_detections,
    assert_same_losses,
    assert_same_training,
    make_batch,
    spread_predictions,
)


def theirs():
    """Detectron2's own file, with a smaller network."""
    model = get_config("common/models/retinanet.py").model
    model.backbone.bottom_up.stages.depth = 18
    del model.backbone.bottom_up.stages.stride_in_1x1  # R-18 has no such blocks
    model.backbone.top_block.in_channels = 512
    model.backbone.out_channels = 32
    for shape in model.head.input_shape:
        shape.channels = 32
    model.head.conv_dims = [32, 32]
    model.num_classes = 7
    return model


def pair(**changes):
    """Detectron2's model and ours with the same weights, from the same file."""
    torch.manual_seed(0)
    models = []
    for target in (None, RetinaNetExt):
        config = theirs()
        config.update(changes)
        if target is not None:
            config._target_ = target
        models.append(instantiate(config))
    spread_predictions(models[0])
    models[1].load_state_dict(models[0].state_dict())
    return models


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"focal_loss_alpha": 0.6, "focal_loss_gamma": 1.5, "smooth_l1_beta": 0.11},
        {"box_reg_loss_type": "giou", "smooth_l1_beta": 0.3},
        {
            "test_score_thresh": 0.1,
            "test_topk_candidates": 50,
            "test_nms_thresh": 0.3,
            "max_detections_per_image": 9,
        },
    ],
)
def test_another_target_gives_the_same_losses_and_detections(changes: dict):
    d2, ours = pair(**changes)
    batch = make_batch(7)
    assert_same_losses(d2, ours, batch, steps=2)
    assert_same_detections(d2, ours, batch)
    assert_same_training(d2.double(), ours.double(), batch)


@pytest.mark.parametrize("room", ["retinanet_ext", "retinanet_ext.modeling"])
def test_the_target_may_be_given_on_the_command_line(room: str):
    config = OmegaConf.create({"model": theirs()}, flags={"allow_objects": True})
    LazyConfig.apply_overrides(
        config, [f"model._target_={room}.RetinaNetExt", "model.num_classes=5"]
    )
    model = instantiate(config.model)
    assert type(model) is RetinaNetExt and model.decoder.num_classes == 5


def test_thresholds_of_the_matcher_reach_the_assigner():
    matcher = L(Matcher)(thresholds=[0.2, 0.7], labels=[0, -1, 1], allow_low_quality_matches=False)
    d2, ours = pair(anchor_matcher=matcher)
    assert type(ours.assigner) is IoUAssigner
    assert_same_losses(d2, ours, make_batch(7))


class FewerObjects(Matcher):
    """A matcher of somebody else's: every other object is background."""

    def __call__(self, match_quality_matrix):
        matched, labels = super().__call__(match_quality_matrix)
        labels[(labels == 1) & (matched % 2 == 1)] = 0
        return matched, labels


def test_a_matcher_of_another_class_is_called_as_detectron2_calls_it():
    usual, _ = pair()
    matcher = L(FewerObjects)(thresholds=[0.4, 0.5], labels=[0, -1, 1])
    d2, ours = pair(anchor_matcher=matcher)
    assert type(ours.assigner) is MatcherAssigner
    batch = make_batch(7)
    assert_same_losses(d2, ours, batch)
    anchors = usual.anchor_generator([torch.zeros(1, 1, 16, 16)] * 5)
    labels = ours.label_anchors(anchors, batch[:1]).labels
    assert not torch.equal(labels[0], usual.label_anchors(anchors, [batch[0]["instances"]])[0][0])


def test_parts_of_this_package_go_where_detectron2s_arguments_stood():
    config = theirs()
    config._target_ = RetinaNetExt
    box_loss = L(L1)(box2box_transform=config.box2box_transform)
    config.box_loss = box_loss
    assert type(instantiate(config).box_loss) is L1
    config.smooth_l1_beta = 0.1
    with pytest.raises(TypeError, match=r"box_loss and smooth_l1_beta, .* `del model\.smooth"):
        instantiate(config)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("focal_loss_alfa", 0.25, "no argument 'focal_loss_alfa'.* mean 'focal_loss_alpha'"),
        ("anchor_matcher", None, "needs an assigner, or in its place the anchor_matcher"),
        ("box2box_transform", None, "box_loss and decoder needs box2box_transform"),
        ("box_reg_loss_type", "gio", "BBOX_REG_LOSS_TYPE is 'gio'"),
    ],
)
def test_arguments_that_cannot_work_are_refused_in_a_sentence(name: str, value, words: str):
    config = theirs()
    config._target_ = RetinaNetExt
    config[name] = value
    with pytest.raises((TypeError, KeyError), match=words):
        instantiate(config)
