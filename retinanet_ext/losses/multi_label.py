"""Anchors with several true classes, for losses over K independent sigmoids.

Labels hold one class per anchor. What the others change is a difference at few entries: the loss of
a positive less that of the negative that the labels say it is. Letters: N images, A anchors per
location, K classes, E further true classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from .elementwise import conv_entry_logits, element_logits

EntryLoss = Callable[[Tensor, Tensor], Tensor]
"""Elementwise, of logits and of where their truth is 1, both (E,)."""


def extra_positive_loss(
    logits: Sequence[Tensor], extra: Tensor, num_classes: int, loss: EntryLoss
) -> Tensor:
    """What a sum of ``loss`` over all entries changes by when those of ``extra`` are positive too.

    Args:
        logits: a head's L outputs (N, A*K, Hi, Wi).
        extra: (E, 3) int64 of image, anchor and class: each entry once, none that is positive by
            its anchor's label or belongs to an ignored anchor. E may be 0.
        num_classes: K.
        loss: the elementwise loss; row i of its arguments belongs to row i of ``extra``.
    """
    return _turned_positive(element_logits(logits, extra, num_classes), loss)


def conv_extra_positive_loss(
    features: Sequence[Tensor],
    weight: Tensor,
    bias: Tensor | None,
    extra: Tensor,
    num_classes: int,
    loss: EntryLoss,
) -> Tensor:
    """:func:`extra_positive_loss` of ``conv2d(features, weight, bias)``, for E logits only.

    Args:
        features: L tensors (N, C, Hi, Wi).
        weight, bias: see :func:`retinanet_ext.losses.conv_focal_loss`.
        extra, num_classes, loss: see :func:`extra_positive_loss`.
    """
    return _turned_positive(conv_entry_logits(features, weight, bias, extra, num_classes), loss)


def _turned_positive(x: Tensor, loss: EntryLoss) -> Tensor:
    is_positive = torch.ones_like(x, dtype=torch.bool)
    return (loss(x, is_positive) - loss(x, ~is_positive)).sum()
