"""Box losses against hand-computed values, a scalar float64 reference, and for odd boxes."""

from __future__ import annotations

import math

import pytest
import torch
from torchvision.ops import complete_box_iou_loss

from retinanet_ext.losses import BOX_IOU_LOSSES, iou_box_loss, smooth_l1_box_loss
from retinanet_ext.losses.box import order_corners

KINDS = ["iou", "giou", "diou", "ciou"]
BOX = torch.tensor([[-1.0, -1.0, 1.0, 1.0]])
OTHER = torch.tensor([[0.0, -1.0, 1.0, 1.0]])


def boxes_around(count: int, spread: float, seed: int) -> torch.Tensor:
    """Proper boxes of 5 to 45 pixels, float64."""
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(count, 2, generator=generator, dtype=torch.float64) * spread
    size = torch.rand(count, 2, generator=generator, dtype=torch.float64) * 40 + 5
    return torch.cat([corner, corner + size], dim=1)


def reference(a: list[float], b: list[float], kind: str) -> float:
    """One pair, written from the papers' set notation, with Python's own float64."""
    (w, h), (gt_w, gt_h) = (a[2] - a[0], a[3] - a[1]), (b[2] - b[0], b[3] - b[1])
    shared = [max(0.0, min(a[i + 2], b[i + 2]) - max(a[i], b[i])) for i in (0, 1)]
    hull = [max(a[i + 2], b[i + 2]) - min(a[i], b[i]) for i in (0, 1)]
    union = w * h + gt_w * gt_h - shared[0] * shared[1]
    iou = shared[0] * shared[1] / union
    if kind == "iou":
        return 1 - iou
    if kind == "giou":
        return 1 - iou + (hull[0] * hull[1] - union) / (hull[0] * hull[1])
    centres = [(a[i] + a[i + 2] - b[i] - b[i + 2]) / 2 for i in (0, 1)]
    loss = 1 - iou + math.hypot(*centres) ** 2 / math.hypot(*hull) ** 2
    if kind == "ciou":
        v = 4 / math.pi**2 * (math.atan(gt_w / gt_h) - math.atan(w / h)) ** 2
        loss += v * v / (1 - iou + v)
    return loss


@pytest.mark.parametrize(
    # IoU = 1/2 and the enclosing box is BOX, so GIoU loses 1/2; the centres are 1/2 apart on a
    # squared diagonal of 8: DIoU adds 0.25 / 8 = 0.03125; CIoU adds the term for the ratio.
    ("kind", "expected"),
    [("iou", 0.5), ("giou", 0.5), ("diou", 0.53125), ("ciou", 0.5345)],
)
def test_iou_losses_have_the_published_values(kind: str, expected: float):
    assert iou_box_loss(BOX, OTHER, kind).item() == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("spread", [20.0, 500.0], ids=["overlapping", "mostly apart"])
@pytest.mark.parametrize("kind", KINDS)
def test_iou_losses_equal_the_scalar_reference(kind: str, spread: float):
    boxes, gt_boxes = boxes_around(60, spread, 0), boxes_around(60, spread, 1)
    pairs = zip(boxes.tolist(), gt_boxes.tolist(), strict=True)
    expected = torch.tensor([reference(a, b, kind) for a, b in pairs], dtype=torch.float64)
    # 1e-7 in the divisors against areas of at least 25 square pixels.
    torch.testing.assert_close(BOX_IOU_LOSSES[kind](boxes, gt_boxes), expected, rtol=0, atol=1e-7)
    total = iou_box_loss(boxes.float(), gt_boxes.float(), kind)
    torch.testing.assert_close(total.double(), expected.sum(), rtol=1e-5, atol=0)


@pytest.mark.parametrize("kind", ["iou", "giou", "diou"])
def test_gradients_are_those_of_the_values(kind: str):
    boxes, gt_boxes = boxes_around(8, 30.0, 2).requires_grad_(), boxes_around(8, 30.0, 3)
    assert torch.autograd.gradcheck(lambda x: iou_box_loss(x, gt_boxes, kind), boxes)


def test_gradient_of_ciou_takes_the_trade_off_as_given():
    # So it is no gradient of the value; torchvision's is right for boxes that have an area.
    boxes, gt_boxes = boxes_around(30, 30.0, 2).requires_grad_(), boxes_around(30, 30.0, 3)
    ours = torch.autograd.grad(iou_box_loss(boxes, gt_boxes, "ciou"), boxes)
    theirs = torch.autograd.grad(complete_box_iou_loss(boxes, gt_boxes, "sum"), boxes)
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_equal_boxes_cost_nothing_and_pairs_add_up(kind: str):
    assert iou_box_loss(BOX, BOX, kind).item() == pytest.approx(0, abs=1e-6)
    two = iou_box_loss(torch.cat([BOX, BOX]), torch.cat([OTHER, BOX]), kind)
    torch.testing.assert_close(two, iou_box_loss(BOX, OTHER, kind))


ODD = {
    "proper": [10.0, 20.0, 40.0, 60.0],
    "no area": [10.0, 20.0, 10.0, 20.0],
    "no width": [20.0, 20.0, 20.0, 60.0],
    "no height": [10.0, 30.0, 40.0, 30.0],
    "tiny": [10.0, 20.0, 10.00001, 20.00001],
    "inverted": [40.0, 60.0, 10.0, 20.0],
    "inverted in x": [40.0, 20.0, 10.0, 60.0],
    "inverted in y": [15.0, 70.0, 35.0, 10.0],
    "vanishing": [0.0, 0.0, 1e-25, 1e-25],
    "far": [1e6, -1e6, 1e6 + 30, -1e6 + 1],
    "huge": [-1e9, -1e9, 1e9, 1e9],
    "origin": [0.0, 0.0, 0.0, 0.0],
}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("kind", KINDS)
def test_odd_boxes_have_finite_losses_and_gradients(kind: str, dtype: torch.dtype):
    odd = torch.tensor(list(ODD.values()), dtype=torch.float64).clamp(max=torch.finfo(dtype).max)
    odd = odd.clamp(min=torch.finfo(dtype).min).to(dtype)
    count = len(odd)
    boxes = odd.repeat_interleave(count, dim=0).requires_grad_()
    gt_boxes = odd.repeat(count, 1).requires_grad_()
    loss = BOX_IOU_LOSSES[kind](*(order_corners(x.to(torch.float64)) for x in (boxes, gt_boxes)))
    assert (loss > -1e-6).all() and (loss < 3.1).all()
    total = iou_box_loss(boxes, gt_boxes, kind)
    assert total.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    total.backward()
    assert total.isfinite()
    for gradient in (boxes.grad, gt_boxes.grad):
        assert (gradient.abs() < 1e5).all()  # the largest belongs to the tiny box


@pytest.mark.parametrize("kind", KINDS)
def test_inverted_box_is_what_lies_between_its_corners(kind: str):
    proper = torch.tensor([ODD["proper"]])
    for name in ("inverted", "inverted in x"):
        inverted = torch.tensor([ODD[name]], requires_grad=True)
        gt_boxes = proper + 3.0
        loss = iou_box_loss(inverted, gt_boxes, kind)
        torch.testing.assert_close(loss, iou_box_loss(proper, gt_boxes, kind))
        loss.backward()
        assert (inverted.grad != 0).all()


@pytest.mark.parametrize("kind", ["giou", "diou", "ciou"])
def test_boxes_apart_are_moved_together_and_by_iou_alone_not(kind: str):
    for name, moved in ((kind, True), ("iou", False)):
        boxes = (BOX + 100).requires_grad_()
        iou_box_loss(boxes, BOX, name).backward()
        assert (boxes.grad.view(2, 2).sum(dim=0) > 0).all() == moved


def test_order_corners_leaves_proper_boxes_and_their_gradients_alone():
    boxes = torch.tensor([ODD["proper"], ODD["no area"], ODD["no width"]], requires_grad=True)
    weight = torch.arange(12.0).view(3, 4)
    ordered = order_corners(boxes)
    (ordered * weight).sum().backward()
    assert torch.equal(ordered, boxes) and torch.equal(boxes.grad, weight)


def test_smooth_l1_is_quadratic_up_to_beta_then_linear():
    # beta 1: 0.5 * 0.5^2 = 0.125 and 2 - 0.5 = 1.5; beta 0: |x|
    deltas, targets = torch.tensor([[0.5, 2.0, 0.0, 0.0]]), torch.zeros(1, 4)
    assert smooth_l1_box_loss(deltas, targets, beta=1.0).item() == pytest.approx(1.625)
    assert smooth_l1_box_loss(deltas, targets, beta=0.0).item() == pytest.approx(2.5)


@pytest.mark.parametrize("kind", KINDS)
def test_no_boxes_give_zero_with_a_gradient(kind: str):
    boxes = torch.zeros(0, 4, requires_grad=True)
    iou_box_loss(boxes, torch.zeros(0, 4), kind).backward()
    assert boxes.grad.shape == (0, 4)


def test_nonsense_is_refused_by_name():
    with pytest.raises(ValueError, match="'eiou'"):
        iou_box_loss(BOX, OTHER, "eiou")
    with pytest.raises(ValueError, match="beta"):
        smooth_l1_box_loss(BOX, OTHER, beta=-1.0)
