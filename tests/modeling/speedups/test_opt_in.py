"""Fast paths are taken where the classes themselves say so and nobody listens to their parts."""

from __future__ import annotations

import pytest
import torch
from detectron2.layers import ShapeSpec
from torch import nn
from torch.nn.utils import parametrizations

from retinanet_ext.modeling import FocalLoss, RetinaNetHead
from retinanet_ext.modeling.speedups.opt_in import opts_in, wanted_parts

BOTH = {"cls_features", "positive_deltas"}
METHODS = ["forward", "outputs", "tower_features", "named_outputs", "predict", "build_towers"]


def build(head_class: type = RetinaNetHead) -> RetinaNetHead:
    return head_class(
        input_shape=[ShapeSpec(channels=4, stride=8)],
        num_classes=2,
        num_anchors=3,
        conv_dims=[4],
    )


def wanted(head: nn.Module, cls_loss: object = None) -> set[str]:
    return wanted_parts(head, cls_loss or FocalLoss(), fused=True, sparse=True)


class Parent:
    def fast(self): ...


def test_an_inherited_fast_path_does_not_count():
    assert opts_in(Parent(), "fast")
    assert not opts_in(type("Child", (Parent,), {})(), "fast")
    assert opts_in(type("Again", (Parent,), {"fast": Parent.fast})(), "fast")


def test_parts_are_asked_for_as_the_detector_may_use_them():
    head, loss = build(), FocalLoss()
    assert wanted(head) == BOTH
    assert wanted_parts(head, loss, fused=True, sparse=False) == {"cls_features"}
    assert wanted_parts(head, loss, fused=False, sparse=True) == {"positive_deltas"}
    assert wanted_parts(head, loss, fused=False, sparse=False) == set()
    assert wanted(head, nn.Identity()) == {"positive_deltas"}
    assert wanted(nn.Identity()) == set()


@pytest.mark.parametrize("name", METHODS)
def test_a_head_that_computes_in_another_way_is_called_as_a_whole(name: str):
    def another_way(self, *args, **kwargs):
        return getattr(RetinaNetHead, name)(self, *args, **kwargs)

    below = type("Below", (RetinaNetHead,), {name: another_way})
    assert wanted(build(below)) == set()
    mixed = type("Mixed", (type("Mixin", (), {name: another_way}), RetinaNetHead), {})
    assert wanted(build(mixed)) == set()
    again = type("Again", (below,), {"partial_outputs": RetinaNetHead.partial_outputs})
    assert wanted(build(again)) == BOTH


@pytest.mark.parametrize("part", ["", "cls_score", "bbox_pred", "cls_subnet.0", "bbox_subnet.1"])
@pytest.mark.parametrize(
    "listen",
    [
        "register_forward_hook",
        "register_forward_pre_hook",
        "register_full_backward_hook",
        "register_full_backward_pre_hook",
    ],
)
def test_a_head_that_somebody_listens_to_is_called_as_a_whole(part: str, listen: str):
    head = build()
    handle = getattr(head.get_submodule(part), listen)(lambda *_: None)
    assert wanted(head) == set()
    handle.remove()
    assert wanted(head) == BOTH


def test_a_head_whose_part_was_replaced_is_called_as_a_whole():
    head = build()
    plain = head.bbox_pred.forward
    head.bbox_pred.forward = lambda x: 2 * plain(x)
    assert wanted(head) == set()


def test_a_loss_that_somebody_listens_to_gets_logits():
    loss = FocalLoss()
    loss.register_forward_hook(lambda *_: None)
    assert wanted(build(), loss) == {"positive_deltas"}


def test_a_class_predictor_that_is_no_plain_convolution_makes_logits():
    head = build()
    parametrizations.weight_norm(head.cls_score)
    assert wanted(head) == {"positive_deltas"}
    for change in ({"dilation": 2, "padding": 2}, {"padding": 0}, {"groups": 2}, {"stride": 2}):
        head = build()
        head.cls_score = nn.Conv2d(4, 6, **{"kernel_size": 3, "padding": 1, **change})
        assert wanted(head) == {"positive_deltas"}, change
    head.cls_score = nn.Conv2d(4, 6, 1)
    assert wanted(head) == BOTH
    with torch.no_grad():
        assert head.cls_score(torch.zeros(1, 4, 3, 3)).shape == (1, 6, 3, 3)
