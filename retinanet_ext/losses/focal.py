"""Focal loss (Lin et al., https://arxiv.org/abs/1708.02002, Sec. 3), the readable definition.

Letters: N images, A anchors per location (levels may differ in it), K classes, R anchors over all
levels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .kernels.dispatch import check_kernel, fused_focal_loss
from .layout import element_losses, level_views
from .precision import at_least_float32


def focal_loss(logits: Tensor, targets: Tensor, alpha: float = 0.25, gamma: float = 2.0) -> Tensor:
    """FL(p_t) = -alpha_t (1 - p_t)^gamma log(p_t), elementwise (Eq. 5).

    p_t is the probability given to the truth: sigmoid(x) where the target is 1, 1 - sigmoid(x)
    where it is 0. Easy examples (p_t near 1) weigh little: with gamma = 2 an example at p_t = 0.9
    costs 100 times less than under cross entropy. gamma = 0 is (alpha-balanced) cross entropy.

    Both factors are taken as exponents of log-sigmoids rather than as powers of a probability that
    has underflowed to 0, so value and gradient are finite for every gamma >= 0 and |x| <= 100.

    Args:
        logits: any shape; half precision is computed, and returned, in float32.
        targets: same shape (or broadcastable), 0 or 1.
        alpha: weight of the targets that are 1; 1 - alpha goes to the others. -1 weighs all by 1.
        gamma: focusing parameter.

    Raises:
        ValueError: if alpha is neither -1 nor in [0, 1], or gamma is negative.
    """
    check_focal_arguments(alpha, gamma)
    logits = at_least_float32(logits)
    is_positive = targets.to(torch.bool)
    signed = torch.where(is_positive, logits, -logits)  # p_t = sigmoid(signed)
    loss = -F.logsigmoid(signed) * torch.exp(gamma * F.logsigmoid(-signed))
    if alpha < 0:
        return loss
    return loss * torch.where(is_positive, alpha, 1 - alpha)


def sigmoid_focal_loss(
    logits: Tensor | Sequence[Tensor],
    labels: Tensor,
    num_classes: int,
    alpha: float = 0.25,
    gamma: float = 2.0,
    reduction: str = "sum",
    kernel: str = "auto",
) -> Any:
    """Focal loss of K independent sigmoids against integer labels.

    Args:
        logits: (..., K), or a head's L outputs (N, A*K, Hi, Wi).
        labels: (...), or (N, R) with R in the order (level, Hi, Wi, A); values in {-1 ignore,
            0..K-1 class, K background}.
        num_classes: K.
        alpha, gamma: see :func:`focal_loss`.
        reduction: "sum", "mean" over the entries that are not ignored (0 if there are none), or
            "none".
        kernel: "auto" makes loss and gradient in one pass for "sum" and "mean": by the Triton
            kernel on CUDA where it runs, else chunk by chunk; "triton" and "chunked" ask for one of
            them. "reference" computes every entry with :func:`focal_loss` and leaves the gradient
            to autograd. Their results are equal within float rounding.

    Returns:
        A scalar, or for "none" the loss of each entry in the shape of ``logits`` (0 where ignored).

    Raises:
        ValueError: if a shape, a reduction, a kernel, alpha or gamma is out of range, or "triton"
            is asked for off CUDA.
        ImportError: if "triton" is asked for where Triton is missing.
    """
    check_focal_arguments(alpha, gamma)
    check_kernel(kernel)
    if reduction not in ("none", "mean", "sum"):
        raise ValueError(f"reduction must be 'none', 'mean' or 'sum', got '{reduction}'")
    if not isinstance(logits, Tensor):
        levels, level_labels = list(logits), labels
    else:
        if logits.shape != (*labels.shape, num_classes):
            raise ValueError(
                f"logits must be (..., {num_classes}) with labels (...) = {tuple(labels.shape)}, "
                f"got {tuple(logits.shape)}"
            )
        # A list of anchors is a level of one location.
        levels = [logits.reshape(labels.numel(), num_classes, 1, 1)]
        level_labels = labels.reshape(-1, 1)
    if kernel == "reference" or reduction == "none":
        losses = element_losses(
            levels, level_labels, num_classes, lambda x, y: focal_loss(x, y, alpha, gamma)
        )
        if reduction == "none":
            return losses[0].reshape(logits.shape) if isinstance(logits, Tensor) else losses
        total = torch.stack([loss.sum() for loss in losses]).sum()
    else:
        total = fused_focal_loss(levels, level_labels, num_classes, alpha, gamma, kernel)
    if reduction == "mean":
        return total / ((labels >= 0).sum() * num_classes).clamp(min=1)
    return total


def check_focal_arguments(alpha: float, gamma: float) -> None:
    """Raise ValueError unless alpha is -1 or in [0, 1] and gamma >= 0."""
    if alpha != -1 and not 0 <= alpha <= 1:
        raise ValueError(f"alpha must be in [0, 1], or -1 for no weighting, got {alpha}")
    if not gamma >= 0:
        raise ValueError(f"gamma must be >= 0, got {gamma}")


def softmax_focal_loss(
    logits: Sequence[Tensor],
    labels: Tensor,
    num_classes: int,
    alpha: float = -1,
    gamma: float = 0.0,
) -> Tensor:
    """-alpha_t (1 - p_t)^gamma log(p_t) of every anchor, (N, R), 0 where ignored.

    p_t is the probability of the anchor's own label, the background being one of K + 1. The
    defaults are the cross entropy.

    Args:
        logits: a head's L outputs (N, A*(K+1), Hi, Wi), of each anchor the background last.
        labels: (N, R), R in the order (level, Hi, Wi, A); values in {-1 ignore, 0..K-1 class,
            K background}.
        num_classes: K.
        alpha: weight of anchors with a class, 1 - alpha of the background's; negative: 1 of both.
        gamma: focusing parameter.

    Raises:
        ValueError: if a shape does not fit the others, or a number is out of range.
    """
    check_focal_arguments(alpha, gamma)
    losses = []
    for x, y in level_views(logits, labels, num_classes + 1):
        log_p = at_least_float32(x).log_softmax(dim=2).gather(2, y.clamp(min=0))
        loss = -log_p
        if gamma > 0:
            # Above 0, where a power below 1 has an infinite slope.
            rest = (-torch.expm1(log_p)).clamp(min=torch.finfo(log_p.dtype).tiny)
            loss = loss * rest**gamma
        if alpha >= 0:
            loss = loss * torch.where(y < num_classes, alpha, 1 - alpha).to(loss.dtype)
        loss = loss.masked_fill(y < 0, 0.0)
        losses.append(loss.squeeze(2).permute(0, 2, 3, 1).flatten(1))
    return torch.cat(losses, dim=1)
