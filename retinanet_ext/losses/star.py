"""FL*, the other form of the focal loss (Lin et al., arXiv 1708.02002, Appendices A and B)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from .focal import check_focal_arguments
from .layout import element_losses
from .precision import at_least_float32


def focal_loss_star(
    logits: Tensor, targets: Tensor, gamma: float = 2.0, beta: float = 1.0, alpha: float = -1
) -> Tensor:
    """FL* = -log(p_t*) / gamma with p_t* = sigmoid(gamma x_t + beta), elementwise.

    x_t is the logit of the truth: x where the target is 1, -x where it is 0. It is cross entropy of
    a logit made steeper by gamma and shifted by beta, so that, as under the focal loss, an example
    with x_t > 0 costs little; gamma = 1, beta = 0 is cross entropy. The derivative by x is
    y (p_t* - 1), y = 1 or -1 (Appendix B), so value and gradient are finite for every finite logit.
    Table 3 has gamma = 2, beta = 1 (33.8 AP) and gamma = 4, beta = 0 (33.9), the focal loss 34.0.

    Args:
        logits: any shape; half precision is computed, and returned, in float32.
        targets: same shape (or broadcastable), 0 or 1.
        gamma: steepness, > 0.
        beta: shift.
        alpha: weight of the targets that are 1; 1 - alpha goes to the others. -1, as in the paper's
            equation, weighs all by 1.

    Raises:
        ValueError: if gamma is not positive, or alpha is neither -1 nor in [0, 1].
    """
    check_star_arguments(gamma, alpha)
    logits = at_least_float32(logits)
    is_positive = targets.to(torch.bool)
    loss = F.softplus(-(gamma * torch.where(is_positive, logits, -logits) + beta)) / gamma
    if alpha < 0:
        return loss
    return loss * torch.where(is_positive, alpha, 1 - alpha)


def sigmoid_focal_loss_star(
    logits: Sequence[Tensor],
    labels: Tensor,
    num_classes: int,
    gamma: float = 2.0,
    beta: float = 1.0,
    alpha: float = -1,
) -> Tensor:
    """Sum of :func:`focal_loss_star` over K independent sigmoids against integer labels.

    Args:
        logits: a head's L outputs (N, A*K, Hi, Wi).
        labels: (N, R), R in the order (level, Hi, Wi, A); values in {-1 ignore, 0..K-1 class,
            K background}.
        num_classes: K.
        gamma, beta, alpha: see :func:`focal_loss_star`.

    Raises:
        ValueError: if a shape, gamma or alpha is out of range.
    """
    losses = element_losses(
        logits, labels, num_classes, lambda x, y: focal_loss_star(x, y, gamma, beta, alpha)
    )
    return torch.stack([loss.sum() for loss in losses]).sum()


def check_star_arguments(gamma: float, alpha: float) -> None:
    """Raise ValueError unless gamma > 0 and alpha is -1 or in [0, 1]."""
    if not gamma > 0:
        raise ValueError(f"gamma of FL* must be > 0, got {gamma}")
    check_focal_arguments(alpha, 0.0)
