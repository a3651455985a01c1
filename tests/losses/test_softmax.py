"""The softmax's losses: values by hand, the cross entropy of PyTorch, ignored anchors."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from retinanet_ext.losses import softmax_focal_loss


def one_anchor(logits: list[float], label: int, **kwargs: float) -> float:
    """The loss of one anchor of two classes."""
    maps = [torch.tensor(logits).view(1, 3, 1, 1)]
    return softmax_focal_loss(maps, torch.tensor([[label]]), 2, **kwargs).item()


@pytest.mark.parametrize(
    ("logits", "label", "expected"),
    [
        ([0.0, 0.0, 0.0], 2, 0.366204),
        ([2.0, 0.0, 0.0], 0, 0.002717),
        ([2.0, 0.0, 0.0], 2, 1.340921),
    ],
)
def test_focal_loss_has_the_values_computed_by_hand(logits, label, expected):
    assert one_anchor(logits, label, alpha=0.25, gamma=2.0) == pytest.approx(expected, abs=2e-6)


def made_up(seed: int = 0) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Logits of two levels with 2 and 1 anchors of 3 classes, and labels of all kinds."""
    generator = torch.Generator().manual_seed(seed)
    maps = [
        torch.randn(2, anchors * 4, height, width, generator=generator).requires_grad_()
        for anchors, height, width in ((2, 3, 2), (1, 1, 2))
    ]
    return maps, torch.randint(-1, 4, (2, 14), generator=generator)


def in_rows(maps: list[torch.Tensor]) -> torch.Tensor:
    """(N, R, 4) in the order of the labels."""
    return torch.cat(
        [x.unflatten(1, (-1, 4)).permute(0, 3, 4, 1, 2).flatten(1, 3) for x in maps], dim=1
    )


def test_without_alpha_and_gamma_it_is_pytorchs_cross_entropy():
    maps, labels = made_up()
    loss = softmax_focal_loss(maps, labels, 3)
    expected = F.cross_entropy(
        in_rows(maps).flatten(0, 1), labels.flatten(), ignore_index=-1, reduction="none"
    )
    torch.testing.assert_close(loss.flatten(), expected)
    assert loss[labels < 0].eq(0).all() and loss[labels >= 0].gt(0).all()


def test_gamma_0_and_alpha_one_half_is_half_of_the_cross_entropy():
    maps, labels = made_up(1)
    half = softmax_focal_loss(maps, labels, 3, alpha=0.5, gamma=0.0)
    torch.testing.assert_close(half, softmax_focal_loss(maps, labels, 3) / 2)


@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_a_sure_anchor_has_a_finite_gradient(gamma):
    logits = torch.tensor([200.0, 0.0, 0.0]).view(1, 3, 1, 1).requires_grad_()
    softmax_focal_loss([logits], torch.tensor([[0]]), 2, gamma=gamma).sum().backward()
    assert logits.grad is not None and logits.grad.isfinite().all()


def test_logits_for_k_classes_are_refused():
    with pytest.raises(ValueError, match=r"A\*4"):
        softmax_focal_loss([torch.zeros(1, 3, 1, 1)], torch.zeros(1, 1, dtype=torch.int64), 3)
