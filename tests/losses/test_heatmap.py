"""Focal loss against a heat map: values of the paper, gradients, sums over a head's outputs."""

from __future__ import annotations

import math

import pytest
import torch

from retinanet_ext.losses import focal_loss, heatmap_focal_loss, sum_of_heatmap_focal_loss

K = 3


def naive(x, y, gamma=2.0, beta=4.0):
    p = 1 / (1 + torch.exp(-x.double()))
    if y == 1:
        return -((1 - p) ** gamma) * p.log()
    return -((1 - y) ** beta) * p**gamma * (1 - p).log()


def logit(p: float) -> torch.Tensor:
    return torch.tensor(math.log(p / (1 - p)), dtype=torch.float64)


def test_values_of_the_paper():
    for p, y, expected in (
        (0.1, 1.0, 1.865094),
        (0.5, 0.0, 0.173287),
        (0.5, 1.0, 0.173287),
        (0.1, 0.8, 1.69e-6),
    ):
        value = heatmap_focal_loss(logit(p), torch.tensor(y, dtype=torch.float64))
        assert value.item() == pytest.approx(expected, rel=5e-3 if expected < 1e-3 else 1e-5)


@pytest.mark.parametrize("settings", [{}, {"gamma": 0.0}, {"gamma": 1.5, "beta": 2.0}])
@pytest.mark.parametrize("heat", [0.0, 0.05, 0.8, 0.999, 1.0])
def test_equals_the_formula_and_its_slope(settings: dict, heat: float):
    x = torch.linspace(-6, 6, 48, dtype=torch.float64, requires_grad=True)
    got, expected = (
        heatmap_focal_loss(x, torch.full_like(x, heat), **settings),
        naive(x, heat, **settings),
    )
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-12)
    slopes = [torch.autograd.grad(y.sum(), x)[0] for y in (got, expected)]
    torch.testing.assert_close(*slopes, rtol=1e-9, atol=1e-12)


def test_of_a_hard_target_it_is_the_focal_loss_without_alpha():
    x = torch.linspace(-5, 5, 21)
    for target in (0.0, 1.0):
        y = torch.full_like(x, target)
        torch.testing.assert_close(
            heatmap_focal_loss(x, y, gamma=1.5), focal_loss(x, y, alpha=-1, gamma=1.5)
        )


def test_nearer_to_a_centre_a_negative_costs_less():
    heat = torch.tensor([0.0, 0.2, 0.5, 0.9])
    loss = heatmap_focal_loss(torch.zeros(4), heat)
    assert (loss.diff() < 0).all()
    torch.testing.assert_close(loss / loss[0], (1 - heat) ** 4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_finite_for_extreme_logits_and_computed_in_float32(dtype: torch.dtype):
    for heat in (0.0, 0.5, 1.0):
        x = torch.tensor([-1e4, -100.0, 0.0, 100.0, 1e4]).to(dtype).requires_grad_()
        value = heatmap_focal_loss(x, torch.full_like(x, heat))
        value.sum().backward()
        assert value.dtype == torch.float32
        assert value.isfinite().all() and x.grad.isfinite().all()


def test_heat_is_a_target_without_gradient():
    heat = torch.full((3,), 0.5, requires_grad=True)
    assert not heatmap_focal_loss(torch.zeros(3), heat).requires_grad


@pytest.mark.parametrize("anchors", [1, 2])
def test_sum_equals_a_loop_over_entries(anchors: int):
    generator = torch.Generator().manual_seed(0)
    shapes = ((2, 3), (1, 2))
    logits = [torch.randn(2, anchors * K, h, w, generator=generator) * 3 for h, w in shapes]
    rows = sum(h * w for h, w in shapes) * anchors
    heat = torch.rand(2, rows, K, generator=generator)
    heat[0, 0, 1] = heat[1, 3, 2] = 1.0
    labels = torch.zeros(2, rows, dtype=torch.int64)
    labels[0, 2] = labels[1, -1] = -1
    expected = torch.zeros((), dtype=torch.float64)
    for image in range(2):
        # Anchors of a level in the order (H, W, A).
        flat = torch.cat(
            [
                x[image].view(anchors, K, *x.shape[2:]).permute(2, 3, 0, 1).reshape(-1, K)
                for x in logits
            ]
        )
        for row in range(rows):
            for k in range(K):
                if labels[image, row] >= 0:
                    expected += naive(flat[row, k], heat[image, row, k].item())
    got = sum_of_heatmap_focal_loss(logits, heat, labels)
    torch.testing.assert_close(got.double(), expected, rtol=1e-5, atol=0)


def test_wrong_shapes_are_refused():
    logits, labels = [torch.zeros(1, K, 2, 2)], torch.zeros(1, 4, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"heat must be \(N, R, K\) = \(1, 4, 3\)"):
        sum_of_heatmap_focal_loss(logits, torch.zeros(1, 3, K), labels)
    with pytest.raises(ValueError, match=r"and labels \(N, R\)"):
        sum_of_heatmap_focal_loss(logits, torch.zeros(1, 4, K), labels[:, :3])


@pytest.mark.parametrize("settings", [{"gamma": -1.0}, {"beta": -0.1}, {"beta": math.nan}])
def test_settings_out_of_range_are_refused(settings: dict):
    with pytest.raises(ValueError, match="must be"):
        heatmap_focal_loss(torch.zeros(1), torch.zeros(1), **settings)
