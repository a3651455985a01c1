"""The fused focal loss behaves in autograd like any other loss."""

from __future__ import annotations

import pytest
import torch

from retinanet_ext.losses import sigmoid_focal_loss

K = 3


def problem():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 2 * K, 3, 4, generator=generator, dtype=torch.float64)
    labels = torch.randint(-1, K + 1, (2, 24), generator=generator)
    return logits.requires_grad_(), labels


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_gradcheck(gamma: float):
    logits, labels = problem()
    assert torch.autograd.gradcheck(
        lambda x: sigmoid_focal_loss([x], labels, K, 0.25, gamma), (logits,)
    )


def test_gradient_is_scaled_by_what_follows():
    logits, labels = problem()
    (sigmoid_focal_loss([logits], labels, K) / 7).backward()
    other = logits.detach().clone().requires_grad_()
    (sigmoid_focal_loss([other], labels, K, kernel="reference") / 7).backward()
    torch.testing.assert_close(logits.grad, other.grad)


def test_a_kept_graph_gives_the_same_gradient_again():
    logits, labels = problem()
    loss = sigmoid_focal_loss([logits], labels, K)
    (first,) = torch.autograd.grad(3 * loss, logits, retain_graph=True)
    (second,) = torch.autograd.grad(3 * loss, logits)
    torch.testing.assert_close(first, second)


def test_no_graph_without_a_gradient():
    logits, labels = problem()
    assert not sigmoid_focal_loss([logits.detach()], labels, K).requires_grad
    with torch.no_grad():
        assert not sigmoid_focal_loss([logits], labels, K).requires_grad


def test_unknown_kernel_lists_the_known_ones():
    logits, labels = problem()
    with pytest.raises(ValueError, match="auto, reference, got 'fast'"):
        sigmoid_focal_loss([logits], labels, K, kernel="fast")
