"""Classification losses whose positive targets are the IoU of the predicted box (quality-aware).

Quality focal loss (Li et al., *Generalized Focal Loss*, arXiv 2006.04388) and varifocal loss (Zhang
et al., *VarifocalNet*, arXiv 2008.13367). The score of a positive is to become its box's IoU, so
that non-maximum suppression keeps the best boxes rather than the most certain ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from .elementwise import element_logits
from .focal import sigmoid_focal_loss
from .precision import at_least_float32


def quality_focal_loss(logits: Tensor, quality: Tensor, beta: float = 2.0) -> Tensor:
    """QFL = -|y - sigma|^beta ((1 - y) log(1 - sigma) + y log(sigma)), elementwise (Eq. 2).

    It is 0 at sigma = y. With y = 0 or 1 it is the focal loss of gamma = beta, without alpha.

    Args:
        logits: x, any shape, sigma = sigmoid(x); half precision is computed, and returned, in
            float32. Value and gradient are finite wherever x is.
        quality: y in [0, 1], same shape (or broadcastable): the quality of the box at the entry of
            a positive's class, 0 elsewhere. A target: it gets no gradient.
        beta: focusing parameter, 0 or at least 1.

    Raises:
        ValueError: if beta is out of range.
    """
    check_quality_focal_arguments(beta)
    logits, y = at_least_float32(logits), at_least_float32(quality.detach())
    return (y - logits.sigmoid()).abs() ** beta * _cross_entropy(logits, y)


def varifocal_loss(
    logits: Tensor, quality: Tensor, alpha: float = 0.75, gamma: float = 2.0
) -> Tensor:
    """Varifocal loss, elementwise (Eq. 2).

    -q (q log(p) + (1 - q) log(1 - p)) where q > 0, -alpha p^gamma log(1 - p) where q = 0. Unlike
    the focal loss it plays down negatives only; positives count by the quality of their box.

    Args:
        logits: any shape, p = sigmoid(logits); half precision is computed, and returned, in
            float32. Value and gradient are finite wherever they are.
        quality: q in [0, 1], as in :func:`quality_focal_loss`.
        alpha: weight of negatives, at least 0.
        gamma: focusing parameter of negatives, at least 0.

    Raises:
        ValueError: if alpha or gamma is negative or not finite.
    """
    check_varifocal_arguments(alpha, gamma)
    logits, q = at_least_float32(logits), at_least_float32(quality.detach())
    # A power of a probability that has underflowed to 0 would have no finite gradient.
    negative_weight = alpha * torch.exp(gamma * F.logsigmoid(logits))
    return torch.where(q > 0, q, negative_weight) * _cross_entropy(logits, q)


def sigmoid_quality_focal_loss(
    logits: Sequence[Tensor],
    labels: Tensor,
    quality: Tensor,
    num_classes: int,
    beta: float = 2.0,
    kernel: str = "auto",
) -> Tensor:
    """Sum of :func:`quality_focal_loss` over K independent sigmoids.

    Args:
        logits: a head's L outputs (N, A*K, Hi, Wi).
        labels: (N, R), R in the order (level, Hi, Wi, A); values in {-1 ignore, 0..K-1 class,
            K background}.
        quality: (N, R) in [0, 1]; read at positives only.
        num_classes: K.
        beta: see :func:`quality_focal_loss`.
        kernel: of the negatives, which are those of a focal loss; see
            :func:`retinanet_ext.losses.sigmoid_focal_loss`.

    Raises:
        ValueError: if a shape, beta or the kernel is out of range.
    """
    check_quality_focal_arguments(beta)
    negatives = _negatives(logits, labels, quality, num_classes, beta, kernel)
    return negatives + _positives(
        logits, labels, quality, num_classes, lambda x, y: quality_focal_loss(x, y, beta)
    )


def sigmoid_varifocal_loss(
    logits: Sequence[Tensor],
    labels: Tensor,
    quality: Tensor,
    num_classes: int,
    alpha: float = 0.75,
    gamma: float = 2.0,
    kernel: str = "auto",
) -> Tensor:
    """Sum of :func:`varifocal_loss` over K independent sigmoids.

    Args:
        logits, labels, quality, num_classes, kernel: see :func:`sigmoid_quality_focal_loss`.
        alpha, gamma: see :func:`varifocal_loss`.

    Raises:
        ValueError: if a shape, alpha, gamma or the kernel is out of range.
    """
    check_varifocal_arguments(alpha, gamma)
    negatives = alpha * _negatives(logits, labels, quality, num_classes, gamma, kernel)
    return negatives + _positives(
        logits, labels, quality, num_classes, lambda x, q: varifocal_loss(x, q, alpha, gamma)
    )


def check_quality_focal_arguments(beta: float) -> None:
    """Raise ValueError unless beta is 0 or >= 1; between, the slope at sigma = y is infinite."""
    if not (beta == 0 or 1 <= beta < math.inf):
        raise ValueError(f"beta of the quality focal loss must be 0 or at least 1, got {beta}")


def check_varifocal_arguments(alpha: float, gamma: float) -> None:
    """Raise ValueError unless alpha and gamma are finite and at least 0."""
    for name, value in (("alpha", alpha), ("gamma", gamma)):
        if not 0 <= value < math.inf:
            raise ValueError(f"{name} of the varifocal loss must be at least 0, got {value}")


def _cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """Against a target y in [0, 1]; also accurate where it is almost 0."""
    return y * F.softplus(-logits) + (1 - y) * F.softplus(logits)


def _negatives(
    logits: Sequence[Tensor],
    labels: Tensor,
    quality: Tensor,
    num_classes: int,
    gamma: float,
    kernel: str,
) -> Tensor:
    """Sum of -p^gamma log(1 - p) over all entries but those of the positives' classes."""
    if quality.shape != labels.shape:
        raise ValueError(
            f"quality must be (N, R) as labels {tuple(labels.shape)}, got {tuple(quality.shape)}"
        )
    # alpha = 0 weighs positive entries by 0 and negative ones by 1.
    return sigmoid_focal_loss(logits, labels, num_classes, alpha=0.0, gamma=gamma, kernel=kernel)


def _positives(
    logits: Sequence[Tensor],
    labels: Tensor,
    quality: Tensor,
    num_classes: int,
    loss: Callable[[Tensor, Tensor], Tensor],
) -> Tensor:
    """Sum of ``loss(logit, quality)`` over the entries of the positives' classes."""
    images, anchors = ((labels >= 0) & (labels < num_classes)).nonzero(as_tuple=True)
    rows = torch.stack([images, anchors, labels[images, anchors]], dim=1)
    x = element_logits(logits, rows, num_classes)
    return loss(x, quality[images, anchors].to(x.dtype)).sum()
