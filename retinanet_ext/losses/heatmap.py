"""Focal loss against a heat map (Zhou et al., *Objects as Points*, arXiv 1904.07850, Eq. 1).

Letters: N images, L levels, A anchors per location, K classes, Hi x Wi locations of level i, R =
sum of Hi * Wi * A over the levels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from .focal import check_focal_arguments, focal_loss
from .precision import at_least_float32


def heatmap_focal_loss(
    logits: Tensor, heat: Tensor, gamma: float = 2.0, beta: float = 4.0
) -> Tensor:
    """-(1 - p)^gamma log(p) where Y = 1, else -(1 - Y)^beta p^gamma log(1 - p), elementwise.

    Where the heat Y is 0 or 1 this is the focal loss without alpha. Between, an entry is a negative
    that counts the less, the nearer it lies to the centre of an object: a box from there would be
    almost as good.

    Args:
        logits: any shape, p = sigmoid(logits); half precision is computed, and returned, in
            float32. Value and gradient are finite wherever they are.
        heat: Y in [0, 1], same shape (or broadcastable). A target: it gets no gradient.
        gamma: focusing parameter, at least 0 (the paper's alpha).
        beta: how fast the weight of negatives falls towards a centre, at least 0.

    Raises:
        ValueError: if gamma or beta is negative or not finite.
    """
    check_heatmap_arguments(gamma, beta)
    heat = at_least_float32(heat.detach())
    is_centre = heat >= 1
    loss = focal_loss(logits, is_centre, alpha=-1, gamma=gamma)
    return loss * torch.where(is_centre, 1.0, (1 - heat) ** beta)


def sum_of_heatmap_focal_loss(
    logits: Sequence[Tensor], heat: Tensor, labels: Tensor, gamma: float = 2.0, beta: float = 4.0
) -> Tensor:
    """Sum of :func:`heatmap_focal_loss` over all entries that are not ignored.

    Args:
        logits: a head's L outputs (N, A*K, Hi, Wi).
        heat: (N, R, K) in [0, 1], R in the order (level, Hi, Wi, A).
        labels: (N, R); only -1 is read, where an anchor takes part in no loss.
        gamma, beta: see :func:`heatmap_focal_loss`.

    Raises:
        ValueError: if a shape, gamma or beta is out of range.
    """
    num_classes = heat.shape[-1]
    sizes = [math.prod(level.shape[1:]) // num_classes for level in logits]
    expected = (logits[0].shape[0], sum(sizes), num_classes)
    if heat.shape != expected or labels.shape != expected[:2]:
        raise ValueError(
            f"heat must be (N, R, K) = {expected} for these logits, and labels (N, R), got "
            f"{tuple(heat.shape)} and {tuple(labels.shape)}"
        )
    total = torch.zeros((), device=logits[0].device)
    for x, y, label in zip(logits, heat.split(sizes, 1), labels.split(sizes, 1), strict=True):
        images, channels, height, width = x.shape
        shape = (images, height, width, channels // num_classes)
        # Views in the order of the logits: nothing large is copied.
        y = y.reshape(*shape, num_classes).permute(0, 3, 4, 1, 2)
        ignored = label.reshape(shape).permute(0, 3, 1, 2).unsqueeze(2) < 0
        loss = heatmap_focal_loss(x.view(y.shape), y, gamma, beta)
        total = total + loss.masked_fill(ignored, 0.0).sum()
    return total


def check_heatmap_arguments(gamma: float, beta: float) -> None:
    """Raise ValueError unless gamma and beta are finite and at least 0."""
    check_focal_arguments(-1, gamma)
    if not 0 <= beta < math.inf:
        raise ValueError(f"beta of the heat map focal loss must be at least 0, got {beta}")
