"""Box losses against hand-computed values."""

from __future__ import annotations

import pytest
import torch

from retinanet_ext.losses import iou_box_loss, smooth_l1_box_loss

BOX = torch.tensor([[-1.0, -1.0, 1.0, 1.0]])
OTHER = torch.tensor([[0.0, -1.0, 1.0, 1.0]])


@pytest.mark.parametrize(
    # IoU = 1/2 and the enclosing box is BOX, so GIoU loses 1/2; the centres are 1/2 apart on a
    # squared diagonal of 8: DIoU adds 0.25 / 8 = 0.03125; CIoU adds the term for the ratio.
    ("kind", "expected"),
    [("giou", 0.5), ("diou", 0.53125), ("ciou", 0.5345)],
)
def test_iou_losses_have_the_published_values(kind: str, expected: float):
    assert iou_box_loss(BOX, OTHER, kind).item() == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("kind", ["giou", "diou", "ciou"])
def test_equal_boxes_cost_nothing_and_pairs_add_up(kind: str):
    assert iou_box_loss(BOX, BOX, kind).item() == pytest.approx(0, abs=1e-6)
    two = iou_box_loss(torch.cat([BOX, BOX]), torch.cat([OTHER, BOX]), kind)
    torch.testing.assert_close(two, iou_box_loss(BOX, OTHER, kind))


def test_smooth_l1_is_quadratic_up_to_beta_then_linear():
    # beta 1: 0.5 * 0.5^2 = 0.125 and 2 - 0.5 = 1.5; beta 0: |x|
    deltas, targets = torch.tensor([[0.5, 2.0, 0.0, 0.0]]), torch.zeros(1, 4)
    assert smooth_l1_box_loss(deltas, targets, beta=1.0).item() == pytest.approx(1.625)
    assert smooth_l1_box_loss(deltas, targets, beta=0.0).item() == pytest.approx(2.5)


@pytest.mark.parametrize("kind", ["giou", "diou", "ciou"])
def test_no_boxes_give_zero_with_a_gradient(kind: str):
    boxes = torch.zeros(0, 4, requires_grad=True)
    iou_box_loss(boxes, torch.zeros(0, 4), kind).backward()
    assert boxes.grad.shape == (0, 4)


def test_nonsense_is_refused_by_name():
    with pytest.raises(ValueError, match="'eiou'"):
        iou_box_loss(BOX, OTHER, "eiou")
    with pytest.raises(ValueError, match="beta"):
        smooth_l1_box_loss(BOX, OTHER, beta=-1.0)
