"""The focal loss: values, gradients, and what it does at the edges."""

from __future__ import annotations

import math

import pytest
import torch
from fvcore.nn import sigmoid_focal_loss as fvcore_focal_loss
from torch.nn import functional as F

from retinanet_ext.losses import focal_loss, sigmoid_focal_loss

GAMMAS = (0.0, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)


def labelled(num_classes: int = 4):
    """Logits (2, 30, K) and labels (2, 30) with every kind of label."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 30, num_classes, generator=generator) * 3
    labels = torch.randint(-1, num_classes + 1, (2, 30), generator=generator)
    assert set(labels.unique().tolist()) == set(range(-1, num_classes + 1))
    return logits, labels


def to_levels(dense: torch.Tensor, shapes=((1, 2, 5), (3, 2, 2), (2, 2, 2))) -> list[torch.Tensor]:
    """(N, R, K) in the order (level, H, W, A) to the head's layout; shapes are (H, W, A)."""
    n, _, k = dense.shape
    levels, start = [], 0
    for h, w, a in shapes:
        part = dense[:, start : start + h * w * a].reshape(n, h, w, a, k)
        levels.append(part.permute(0, 3, 4, 1, 2).reshape(n, a * k, h, w).contiguous())
        start += h * w * a
    assert start == dense.shape[1]
    return levels


def naive_float64(logits, targets, alpha, gamma):
    p = logits.double().sigmoid()
    p_t = torch.where(targets == 1, p, 1 - p)
    alpha_t = torch.where(targets == 1, alpha, 1.0 - alpha)
    return -alpha_t * (1 - p_t) ** gamma * p_t.log()


@pytest.mark.parametrize("gamma", GAMMAS)
@pytest.mark.parametrize("alpha", [0.25, 0.75])
def test_equals_the_formula(alpha: float, gamma: float):
    logits = torch.linspace(-12, 12, 97)
    for targets in (torch.zeros(97), torch.ones(97)):
        expected = naive_float64(logits, targets, alpha, gamma)
        got = focal_loss(logits.double(), targets, alpha, gamma)
        torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-12)


def test_hundred_times_below_cross_entropy_at_p_09():
    # (1 - 0.9)^2 = 0.01 (Sec. 3.2)
    logit = torch.tensor([math.log(9.0)])
    ratio = F.softplus(-logit) / focal_loss(logit, torch.ones(1), alpha=-1, gamma=2.0)
    assert ratio.item() == pytest.approx(100, rel=1e-4)


def test_gamma_0_without_alpha_is_cross_entropy():
    logits, _ = labelled()
    targets = (torch.rand(logits.shape, generator=torch.Generator().manual_seed(1)) > 0.5).float()
    expected = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    torch.testing.assert_close(focal_loss(logits, targets, alpha=-1, gamma=0.0), expected)


@pytest.mark.parametrize("gamma", [0.0, 1.0, 2.0, 5.0])
def test_equals_fvcore_in_value_and_gradient(gamma: float):
    logits, labels = labelled()
    ours, theirs = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    valid = labels >= 0
    targets = F.one_hot(labels[valid], 5)[:, :-1].float()
    expected = fvcore_focal_loss(theirs[valid], targets, 0.25, gamma, "sum")
    got = sigmoid_focal_loss(ours, labels, 4, 0.25, gamma)
    torch.testing.assert_close(got, expected)
    got.backward(), expected.backward()
    torch.testing.assert_close(ours.grad, theirs.grad)


@pytest.mark.parametrize("gamma", GAMMAS)
def test_gradient_is_the_closed_form(gamma: float):
    # Appendix B: dFL/dx = y (1 - p_t)^gamma (gamma p_t log p_t + p_t - 1), y in {-1, 1}
    x = torch.linspace(-8, 8, 33, dtype=torch.float64)
    for y in (-1.0, 1.0):
        logits = x.clone().requires_grad_()
        focal_loss(logits, torch.full_like(x, y) > 0, -1, gamma).sum().backward()
        p_t = (y * x).sigmoid()
        expected = y * (1 - p_t) ** gamma * (gamma * p_t * p_t.log() + p_t - 1)
        torch.testing.assert_close(logits.grad, expected, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("gamma", GAMMAS)
def test_finite_for_saturated_logits(gamma: float):
    logits = torch.tensor([-100.0, -30.0, -17.0, 0.0, 17.0, 30.0, 100.0], requires_grad=True)
    for targets in (torch.zeros(7), torch.ones(7)):
        logits.grad = None
        loss = focal_loss(logits, targets, 0.25, gamma)
        loss.sum().backward()
        assert loss.isfinite().all() and logits.grad.isfinite().all()


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_gradcheck_in_double_precision(gamma: float):
    logits, labels = labelled()
    logits = logits[:, :6].double().requires_grad_()
    assert torch.autograd.gradcheck(
        lambda x: sigmoid_focal_loss(x, labels[:, :6], 4, 0.25, gamma, "none"), logits
    )


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_head_layout_equals_dense_layout(reduction: str):
    logits, labels = labelled()
    dense = logits.clone().requires_grad_()
    levels = [x.requires_grad_() for x in to_levels(logits)]
    expected = sigmoid_focal_loss(dense, labels, 4, reduction=reduction)
    got = sigmoid_focal_loss(levels, labels, 4, reduction=reduction)
    torch.testing.assert_close(got, expected)
    got.backward(), expected.backward()
    for level, gradient in zip(levels, to_levels(dense.grad), strict=True):
        torch.testing.assert_close(level.grad, gradient)


def test_no_reduction_keeps_the_shape_of_the_logits():
    logits, labels = labelled()
    dense = sigmoid_focal_loss(logits, labels, 4, reduction="none")
    levels = sigmoid_focal_loss(to_levels(logits), labels, 4, reduction="none")
    assert dense.shape == logits.shape
    for got, expected in zip(levels, to_levels(dense), strict=True):
        torch.testing.assert_close(got, expected)


def test_ignored_anchors_give_no_loss_and_no_gradient():
    logits, labels = labelled()
    logits.requires_grad_()
    sigmoid_focal_loss(logits, labels, 4).backward()
    assert (logits.grad[labels == -1] == 0).all()
    assert (logits.grad[labels >= 0] != 0).all()


def test_mean_counts_the_entries_that_are_not_ignored():
    logits, labels = labelled()
    total = sigmoid_focal_loss(logits, labels, 4, reduction="sum")
    count = int((labels >= 0).sum()) * 4
    mean = sigmoid_focal_loss(logits, labels, 4, reduction="mean")
    torch.testing.assert_close(mean, total / count)
    all_ignored = torch.full_like(labels, -1)
    assert sigmoid_focal_loss(logits, all_ignored, 4, reduction="mean") == 0


def test_nothing_to_learn_from_gives_zero_with_a_gradient():
    logits = torch.zeros(0, 4, requires_grad=True)
    loss = sigmoid_focal_loss(logits, torch.zeros(0, dtype=torch.long), 4)
    loss.backward()
    assert loss == 0 and logits.grad.shape == (0, 4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_summed_in_float32(dtype: torch.dtype):
    logits, labels = labelled()
    half = logits.to(dtype)
    loss = sigmoid_focal_loss(half, labels, 4)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, sigmoid_focal_loss(half.float(), labels, 4))


def test_does_not_write_to_its_inputs():
    logits, labels = labelled()
    before = logits.clone(), labels.clone()
    sigmoid_focal_loss(logits, labels, 4)
    assert torch.equal(logits, before[0]) and torch.equal(labels, before[1])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"alpha": 1.5}, "alpha must be in"),
        ({"gamma": -1.0}, "gamma must be"),
        ({"reduction": "avg"}, "'avg'"),
        ({"num_classes": 5}, r"\(\.\.\., 5\)"),
    ],
)
def test_nonsense_is_refused_by_name(changes: dict, words: str):
    logits, labels = labelled()
    arguments = {"num_classes": 4, **changes}
    with pytest.raises(ValueError, match=words):
        sigmoid_focal_loss(logits, labels, **arguments)


def test_labels_of_other_anchors_than_the_levels_are_refused():
    logits, labels = labelled()
    with pytest.raises(ValueError, match=r"labels must be \(2, 30\) .* got \(2, 29\)"):
        sigmoid_focal_loss(to_levels(logits), labels[:, :-1], 4)
