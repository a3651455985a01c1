"""Cross entropy and focal loss of a softmax over K classes and the background.

Letters: N images, A anchors per location (levels may differ in it), K classes, R anchors over all
levels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .focal import check_focal_arguments
from .layout import level_views
from .precision import at_least_float32


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
