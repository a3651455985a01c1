"""Quality focal and varifocal loss: values, gradients, and the sums over a head's outputs."""

from __future__ import annotations

import math

import pytest
import torch

from retinanet_ext.losses import (
    focal_loss,
    quality_focal_loss,
    sigmoid_quality_focal_loss,
    sigmoid_varifocal_loss,
    varifocal_loss,
)

K = 3
QUALITIES = (0.0, 0.05, 0.5, 0.9, 1.0)


def naive_qfl(x, y, beta=2.0):
    sigma = 1 / (1 + torch.exp(-x.double()))
    return -((y - sigma).abs() ** beta) * ((1 - y) * (1 - sigma).log() + y * sigma.log())


def naive_vfl(x, q, alpha=0.75, gamma=2.0):
    p = 1 / (1 + torch.exp(-x.double()))
    if q > 0:
        return -q * (q * p.log() + (1 - q) * (1 - p).log())
    return -alpha * p**gamma * (1 - p).log()


LOSSES = [
    (quality_focal_loss, naive_qfl, {}),
    (quality_focal_loss, naive_qfl, {"beta": 0.0}),
    (quality_focal_loss, naive_qfl, {"beta": 1.0}),
    (quality_focal_loss, naive_qfl, {"beta": 2.5}),
    (varifocal_loss, naive_vfl, {}),
    (varifocal_loss, naive_vfl, {"alpha": 1.5, "gamma": 0.5}),
]
SUMS = [
    (sigmoid_quality_focal_loss, naive_qfl, {}),
    (sigmoid_quality_focal_loss, naive_qfl, {"beta": 1.5}),
    (sigmoid_varifocal_loss, naive_vfl, {}),
    (sigmoid_varifocal_loss, naive_vfl, {"alpha": 0.4, "gamma": 1.0}),
]


def head_outputs(dtype=torch.float32):
    """Logits of 3 levels with 2 anchors, one level empty; labels and quality (2, 10)."""
    generator = torch.Generator().manual_seed(0)
    shapes = ((2, 2), (0, 1), (1, 1))
    logits = [torch.randn(2, 2 * K, h, w, generator=generator) * 3 for h, w in shapes]
    labels = torch.tensor([[0, 1, 2, 3, -1, 3, 3, 0, 2, -1], [3, 3, -1, 1, 3, 0, 2, 2, 3, 1]])
    quality = torch.rand(2, 10, generator=generator)
    quality[0, 0], quality[1, 3] = 0.0, 1.0
    quality[(labels < 0) | (labels == K)] = math.nan  # nobody may look there
    return [x.to(dtype).requires_grad_() for x in logits], labels, quality


def by_a_loop_over_entries(logits, labels, quality, naive):
    total = torch.zeros((), dtype=torch.float64)
    for image in range(2):
        rows = [  # anchors of a level in the order (H, W, A)
            level[image].view(2, K, *level.shape[2:])[a, :, i, j]
            for level in logits
            for i in range(level.shape[2])
            for j in range(level.shape[3])
            for a in range(2)
        ]
        for anchor, (row, label) in enumerate(zip(rows, labels[image].tolist(), strict=True)):
            for k in range(K):
                if label >= 0:
                    y = quality[image, anchor].item() if k == label else 0.0
                    total = total + naive(row[k], y)
    return total


@pytest.mark.parametrize(("loss", "naive", "settings"), LOSSES)
@pytest.mark.parametrize("quality", QUALITIES)
def test_equals_the_formula_and_its_slope(loss, naive, settings, quality: float):
    x = torch.linspace(-6, 6, 48, dtype=torch.float64, requires_grad=True)
    got, expected = loss(x, torch.full_like(x, quality), **settings), naive(x, quality, **settings)
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-12)
    (slope,), (expected_slope,) = (torch.autograd.grad(y.sum(), x) for y in (got, expected))
    torch.testing.assert_close(slope, expected_slope, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("target", [0.0, 1.0])
def test_quality_focal_loss_of_a_hard_label_is_the_focal_loss(target: float):
    x = torch.linspace(-5, 5, 21)
    y = torch.full_like(x, target)
    torch.testing.assert_close(
        quality_focal_loss(x, y, beta=1.5), focal_loss(x, y, alpha=-1, gamma=1.5), atol=1e-6, rtol=0
    )


@pytest.mark.parametrize("quality", [0.2, 0.6, 0.95])
def test_the_least_loss_is_where_the_score_is_the_quality(quality: float):
    x = torch.tensor(math.log(quality / (1 - quality)), dtype=torch.float64, requires_grad=True)
    y = torch.tensor(quality, dtype=torch.float64)
    qfl, vfl = quality_focal_loss(x, y), varifocal_loss(x, y)
    assert qfl.item() == pytest.approx(0, abs=1e-20)
    for loss in (qfl, vfl):
        assert torch.autograd.grad(loss, x)[0].item() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(("loss", "naive", "settings"), LOSSES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_finite_for_extreme_logits(loss, naive, settings, dtype: torch.dtype):
    for quality in QUALITIES:
        x = torch.tensor([-1e4, -100.0, -30.0, 0.0, 30.0, 100.0, 1e4]).to(dtype).requires_grad_()
        value = loss(x, torch.full_like(x, quality), **settings)
        value.sum().backward()
        assert value.dtype == torch.float32
        assert value.isfinite().all() and x.grad.isfinite().all()


@pytest.mark.parametrize("loss", [quality_focal_loss, varifocal_loss])
def test_quality_is_a_target_without_gradient(loss):
    quality = torch.full((3,), 0.5, requires_grad=True)
    assert loss(torch.zeros(3, requires_grad=True), quality).requires_grad
    assert not loss(torch.zeros(3), quality).requires_grad


@pytest.mark.parametrize(("loss", "naive", "settings"), SUMS)
@pytest.mark.parametrize("kernel", ["chunked", "reference"])
def test_sum_equals_a_loop_over_entries(loss, naive, settings, kernel: str):
    logits, labels, quality = head_outputs()
    expected = by_a_loop_over_entries(logits, labels, quality, lambda x, y: naive(x, y, **settings))
    got = loss(logits, labels, quality, K, **settings, kernel=kernel)
    torch.testing.assert_close(got.double(), expected, rtol=1e-5, atol=0)
    wanted = torch.autograd.grad(expected, logits, allow_unused=True)
    for mine, want in zip(torch.autograd.grad(got, logits), wanted, strict=True):
        assert mine.numel() == 0 if want is None else True
        if want is not None:
            torch.testing.assert_close(mine, want, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("loss", [sigmoid_quality_focal_loss, sigmoid_varifocal_loss])
def test_ignored_anchors_add_nothing(loss):
    logits, labels, quality = head_outputs()
    labels = torch.full_like(labels, -1)
    total = loss(logits, labels, torch.full_like(quality, math.nan), K)
    total.backward()
    assert total == 0
    assert not any(level.grad.any() for level in logits)


@pytest.mark.parametrize("loss", [sigmoid_quality_focal_loss, sigmoid_varifocal_loss])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32(loss, dtype: torch.dtype):
    logits, labels, quality = head_outputs(dtype)
    total = loss(logits, labels, quality, K)
    assert total.dtype == torch.float32
    torch.testing.assert_close(total, loss([x.float() for x in logits], labels, quality, K))


@pytest.mark.parametrize("loss", [sigmoid_quality_focal_loss, sigmoid_varifocal_loss])
def test_wrong_shape_of_quality_is_refused(loss):
    logits, labels, quality = head_outputs()
    with pytest.raises(ValueError, match=r"quality must be \(N, R\)"):
        loss(logits, labels, quality[:, :1], K)


@pytest.mark.parametrize("beta", [-1.0, 0.5, math.nan])
def test_beta_out_of_range_is_refused(beta: float):
    with pytest.raises(ValueError, match="beta of the quality focal loss"):
        quality_focal_loss(torch.zeros(1), torch.zeros(1), beta)


@pytest.mark.parametrize("settings", [{"alpha": -1.0}, {"gamma": -0.1}, {"gamma": math.nan}])
def test_varifocal_settings_out_of_range_are_refused(settings: dict):
    with pytest.raises(ValueError, match="of the varifocal loss must be"):
        varifocal_loss(torch.zeros(1), torch.zeros(1), **settings)
