"""DenseTargets checks its shapes, HeadOutputs what a head returned."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from retinanet_ext.structures import DenseTargets, HeadOutputs


def test_positive_mask_leaves_out_background_and_ignored():
    labels = torch.tensor([[-1, 0, 2, 3]])
    targets = DenseTargets(labels, torch.zeros(1, 4, 4), num_classes=3)
    assert targets.pos_mask.tolist() == [[False, True, True, False]]
    assert targets.num_images == 1


@pytest.mark.parametrize(
    ("labels", "boxes"), [((4,), (4, 4)), ((1, 4), (1, 3, 4)), ((1, 4), (1, 4, 5))]
)
def test_wrong_shapes_are_refused(labels, boxes):
    with pytest.raises(ValueError, match="must be"):
        DenseTargets(torch.zeros(labels, dtype=torch.long), torch.zeros(boxes), 3)


@pytest.mark.parametrize(
    "extra",
    [torch.zeros(2, 2, dtype=torch.long), torch.zeros(3, dtype=torch.long), torch.zeros(2, 3)],
)
def test_wrong_extra_classes_are_refused(extra):
    with pytest.raises(ValueError, match=r"extra must be \(E, 3\) int64"):
        DenseTargets(torch.zeros(1, 4, dtype=torch.long), torch.zeros(1, 4, 4), 3, extra)


def test_a_loss_of_one_class_per_anchor_can_refuse_more():
    labels, boxes = torch.zeros(1, 4, dtype=torch.long), torch.zeros(1, 4, 4)
    DenseTargets(labels, boxes, 3).require_one_class("OHEM")
    extra = torch.tensor([[0, 0, 1]])
    with pytest.raises(ValueError, match=r"loss OHEM .*MULTI_LABEL_IOU_THRESH to 1"):
        DenseTargets(labels, boxes, 3, extra).require_one_class("OHEM")


def test_is_frozen():
    targets = DenseTargets(torch.zeros(1, 2, dtype=torch.long), torch.zeros(1, 2, 4), 3)
    with pytest.raises(dataclasses.FrozenInstanceError):
        targets.num_classes = 4


@pytest.mark.parametrize("name", ["matched_idxs", "weights", "quality"])
def test_what_belongs_to_anchors_has_the_shape_of_the_labels(name: str):
    labels = torch.zeros(2, 4, dtype=torch.int64)
    boxes = torch.zeros(2, 4, 4)
    assert getattr(DenseTargets(labels, boxes, 3), name) is None
    assert getattr(DenseTargets(labels, boxes, 3, **{name: labels}), name) is labels
    with pytest.raises(ValueError, match=rf"{name} must be \(N, R\) as labels, \(2, 4\)"):
        DenseTargets(labels, boxes, 3, **{name: labels[0]})


def test_weights_are_refused_by_a_loss_that_knows_none():
    labels, boxes = torch.zeros(1, 4, dtype=torch.int64), torch.zeros(1, 4, 4)
    DenseTargets(labels, boxes, 3).require_no_weights("Mine")
    with pytest.raises(ValueError, match="the loss Mine counts each of them once"):
        DenseTargets(labels, boxes, 3, weights=torch.ones(1, 4)).require_no_weights("Mine")


def test_a_heads_pair_becomes_outputs_and_outputs_are_a_pair():
    logits, deltas = [torch.zeros(1, 3, 2, 2)], [torch.zeros(1, 4, 2, 2)]
    for pair in ((logits, deltas), [logits, deltas]):
        outputs = HeadOutputs.of(pair, "Head")
        assert outputs.logits == logits and outputs.deltas == deltas and outputs.named == {}
    assert HeadOutputs.of(outputs, "Head") is outputs
    again_logits, again_deltas = outputs
    assert again_logits is outputs.logits and again_deltas is outputs.deltas
    assert outputs[0] is again_logits and outputs[1] is again_deltas and len(outputs) == 2


@pytest.mark.parametrize("count", [1, 3, 4])
def test_outputs_without_names_are_refused_in_a_sentence(count: int):
    returned = tuple([torch.zeros(1, 3, 2, 2)] for _ in range(count))
    match = rf"the head Mine returned {count} outputs without names; .*named="
    with pytest.raises(ValueError, match=match):
        HeadOutputs.of(returned, "Mine")
    with pytest.raises(ValueError, match=r"the head Mine returned Tensor; .*named="):
        HeadOutputs.of(returned[0][0], "Mine")
