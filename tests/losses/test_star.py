"""FL*: values, gradients, and what it does at the edges."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from retinanet_ext.losses import focal_loss_star, sigmoid_focal_loss_star

SETTINGS = [(2.0, 1.0), (4.0, 0.0), (0.5, -1.0)]


def naive_float64(logits, targets, gamma, beta, alpha=-1.0):
    y = 2 * targets.double() - 1
    p_star = 1 / (1 + torch.exp(-(gamma * y * logits.double() + beta)))
    weight = 1.0 if alpha < 0 else torch.where(targets == 1, alpha, 1 - alpha)
    return -weight * p_star.log() / gamma


def head_outputs(num_classes: int = 3):
    """Logits of 2 levels with 2 anchors, and labels (2, 2*2*2 + 2) with every kind of label."""
    generator = torch.Generator().manual_seed(0)
    logits = [
        torch.randn(2, 2 * num_classes, 2, 2, generator=generator) * 3,
        torch.randn(2, 2 * num_classes, 1, 1, generator=generator) * 3,
    ]
    labels = torch.tensor([[0, 1, 2, 3, -1, 3, 3, 0, 2, -1], [3, 3, -1, 1, 3, 0, 2, 2, 3, 1]])
    return logits, labels


@pytest.mark.parametrize(("gamma", "beta"), SETTINGS)
@pytest.mark.parametrize("alpha", [-1, 0.25])
def test_equals_the_formula(gamma: float, beta: float, alpha: float):
    logits = torch.linspace(-6, 6, 49, dtype=torch.float64)
    for targets in (torch.zeros(49), torch.ones(49)):
        expected = naive_float64(logits, targets, gamma, beta, alpha)
        got = focal_loss_star(logits, targets, gamma, beta, alpha)
        torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("gamma", "beta"), SETTINGS)
def test_gradient_is_the_closed_form(gamma: float, beta: float):
    # Appendix B: dFL*/dx = y (p_t* - 1), y in {-1, 1}
    x = torch.linspace(-8, 8, 33, dtype=torch.float64)
    for y in (-1.0, 1.0):
        logits = x.clone().requires_grad_()
        focal_loss_star(logits, torch.full_like(x, y) > 0, gamma, beta).sum().backward()
        expected = y * (torch.sigmoid(gamma * y * x + beta) - 1)
        torch.testing.assert_close(logits.grad, expected)


def test_gamma_1_beta_0_is_cross_entropy():
    logits = torch.linspace(-5, 5, 21)
    targets = (torch.arange(21) % 2).float()
    expected = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    torch.testing.assert_close(focal_loss_star(logits, targets, 1.0, 0.0), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_finite_for_extreme_logits(dtype: torch.dtype):
    logits = torch.tensor([-1e4, -100.0, 0.0, 100.0, 1e4]).to(dtype)
    for targets in (torch.zeros(5), torch.ones(5)):
        x = logits.clone().requires_grad_()
        loss = focal_loss_star(x, targets, 4.0, 0.0)
        loss.sum().backward()
        assert loss.dtype == torch.float32
        assert loss.isfinite().all() and x.grad.isfinite().all()
        assert x.grad.abs().max() == 1  # a wrong example is never forgotten


def test_sum_over_levels_equals_a_loop_over_anchors():
    logits, labels = head_outputs()
    expected = 0.0
    for image in range(2):
        rows = [  # anchors of a level in the order (H, W, A)
            level[image].view(2, 3, *level.shape[2:])[a, :, i, j]
            for level in logits
            for i in range(level.shape[2])
            for j in range(level.shape[3])
            for a in range(2)
        ]
        for row, label in zip(rows, labels[image].tolist(), strict=True):
            if label >= 0:
                target = torch.tensor([label == k for k in range(3)]).float()
                expected += naive_float64(row, target, 2.0, 1.0, 0.25).sum().item()
    got = sigmoid_focal_loss_star(logits, labels, 3, 2.0, 1.0, 0.25)
    assert got.item() == pytest.approx(expected, rel=1e-5)


def test_ignored_anchors_add_nothing_and_have_no_gradient():
    logits, labels = head_outputs()
    labels[:, 8:] = -1  # all of level 2
    logits = [level.requires_grad_() for level in logits]
    loss = sigmoid_focal_loss_star(logits, labels, 3)
    torch.testing.assert_close(loss, sigmoid_focal_loss_star(logits[:1], labels[:, :8], 3))
    loss.backward()
    assert logits[0].grad.abs().sum() > 0
    assert not logits[1].grad.any()


@pytest.mark.parametrize("gamma", [0.0, -1.0, float("nan")])
def test_gamma_out_of_range_is_refused(gamma: float):
    with pytest.raises(ValueError, match="gamma of FL"):
        focal_loss_star(torch.zeros(1), torch.zeros(1), gamma)


def test_alpha_out_of_range_is_refused():
    with pytest.raises(ValueError, match="alpha must be in"):
        focal_loss_star(torch.zeros(1), torch.zeros(1), alpha=1.5)
