"""Sigmoid cross entropy of an anchor, and focal loss (cross entropy) with an alpha per class."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from .focal import check_focal_arguments, focal_loss
from .layout import element_losses, level_views
from .precision import at_least_float32

CLASS_BALANCES = ("inverse", "effective")
"""Ways to weigh a class by its number of objects, for :func:`class_alphas`."""


def anchor_cross_entropy(logits: Sequence[Tensor], labels: Tensor, num_classes: int) -> Tensor:
    """Cross entropy of every anchor, summed over its K sigmoids: (N, R), 0 where ignored.

    Args:
        logits: a head's L outputs (N, A*K, Hi, Wi).
        labels: (N, R), R in the order (level, Hi, Wi, A); values in {-1 ignore, 0..K-1 class,
            K background}.
        num_classes: K.

    Raises:
        ValueError: if a shape does not fit the others.
    """
    losses = []
    for x, y in level_views(logits, labels, num_classes):
        x = at_least_float32(x)
        is_class = (y >= 0) & (y < num_classes)
        index = y.clamp(0, num_classes - 1)
        logit = x.gather(2, index)
        # -log(p_t) = softplus(-x_t), so the true class is negated; taking x from softplus(x) would
        # lose the small losses of confident anchors.
        wrong = x.scatter(2, index, torch.where(is_class, -logit, logit))
        loss = F.softplus(wrong).sum(dim=2, keepdim=True).masked_fill(y < 0, 0.0)
        losses.append(loss.squeeze(2).permute(0, 2, 3, 1).flatten(1))
    return torch.cat(losses, dim=1)


def class_balanced_focal_loss(
    logits: Sequence[Tensor],
    labels: Tensor,
    num_classes: int,
    alphas: Tensor,
    gamma: float = 2.0,
) -> Tensor:
    """Sum of the focal loss whose alpha is a class's own; gamma = 0 is cross entropy.

    Sigmoid k weighs its positives by alpha_k and its negatives by 1 - alpha_k. Equal alphas are
    :func:`retinanet_ext.losses.sigmoid_focal_loss`.

    Args:
        logits, labels, num_classes: as in :func:`anchor_cross_entropy`.
        alphas: (K,) in [0, 1].
        gamma: focusing parameter.

    Raises:
        ValueError: if a shape does not fit the others, or gamma is negative.
    """
    check_focal_arguments(-1, gamma)
    if tuple(alphas.shape) != (num_classes,):
        raise ValueError(f"alphas must be ({num_classes},), got {tuple(alphas.shape)}")
    alphas = alphas.view(1, 1, -1, 1, 1)

    def loss(x: Tensor, is_positive: Tensor) -> Tensor:
        weight = torch.where(is_positive, alphas, 1 - alphas)
        return focal_loss(x, is_positive, alpha=-1, gamma=gamma) * weight

    losses = element_losses(logits, labels, num_classes, loss)
    return torch.stack([level.sum() for level in losses]).sum()


def class_alphas(
    counts: Sequence[int], alpha: float = 0.25, balance: str = "effective", beta: float = 0.999
) -> list[float]:
    """An alpha for each class from its number of objects n_k: rarer classes get a larger one.

    A class's weight is w_k = 1 / n_k ("inverse"), or one over the effective number of its objects,
    w_k = (1 - beta) / (1 - beta^n_k) ("effective"; Cui et al., arXiv 1901.05555, Eq. 2 and 3),
    divided by the mean weight. It multiplies what a positive weighs against a negative,

        alpha_k / (1 - alpha_k) = w_k alpha / (1 - alpha),

    so that alpha_k stays within [0, 1] for every w_k, and classes of equal counts get ``alpha``. A
    class without objects has no positives to weigh; it gets ``alpha`` and is left out of the mean.

    Args:
        counts: n_k of the K classes.
        alpha: of a class of mean weight, in [0, 1].
        balance: a value of :data:`CLASS_BALANCES`.
        beta: in [0, 1); 0 weighs all classes alike, near 1 is "inverse".

    Raises:
        ValueError: if an argument is out of range, or all counts are 0.
    """
    if balance not in CLASS_BALANCES:
        raise ValueError(f"balance must be one of {', '.join(CLASS_BALANCES)}, got '{balance}'")
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha must be in [0, 1] to be balanced by class, got {alpha}")
    if not 0 <= beta < 1:
        raise ValueError(f"beta must be in [0, 1), got {beta}")
    if not all(n >= 0 and math.isfinite(n) for n in counts) or not any(counts):
        raise ValueError(f"counts must be >= 0 and not all 0, got {list(counts)}")
    inverse = balance == "inverse"
    weights = [(1 / n if inverse else (1 - beta) / (1 - beta**n)) if n else None for n in counts]
    present = [w for w in weights if w is not None]
    mean = sum(present) / len(present)
    ratios = [1.0 if w is None else w / mean for w in weights]
    return [ratio * alpha / (ratio * alpha + 1 - alpha) for ratio in ratios]
