"""DenseTargets checks its shapes."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from retinanet_ext.structures import DenseTargets


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
