"""How anchor labels line up with what a dense head puts out.

Letters: N images, L levels, A anchors per location (levels may differ in it), K classes, Hi x Wi
locations of level i, R = sum of Hi * Wi * A over the levels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor


def level_views(
    logits: Sequence[Tensor], labels: Tensor, num_classes: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield, level by level, logits (N, A, K, Hi, Wi) and their labels (N, A, 1, Hi, Wi).

    Arguments and errors are those of :func:`split_levels`.
    """
    for level, level_labels in split_levels(logits, labels, num_classes):
        yield level_view(level, level_labels, num_classes)


def element_losses(
    logits: Sequence[Tensor],
    labels: Tensor,
    num_classes: int,
    loss: Callable[[Tensor, Tensor], Tensor],
) -> list[Tensor]:
    """The loss of every entry, in the shapes of ``logits``; 0 where a label is -1.

    Args:
        logits, labels, num_classes: see :func:`split_levels`, also for errors.
        loss: elementwise, of logits (N, A, K, Hi, Wi) and of where their truth is 1, likewise.
    """
    classes = torch.arange(num_classes, device=labels.device).view(1, 1, -1, 1, 1)
    return [
        loss(x, y == classes).masked_fill(y < 0, 0.0).flatten(1, 2)
        for x, y in level_views(logits, labels, num_classes)
    ]


def split_levels(
    logits: Sequence[Tensor], labels: Tensor, num_classes: int
) -> list[tuple[Tensor, Tensor]]:
    """Pair each level's logits with its labels (N, Hi*Wi*A).

    Args:
        logits: L tensors (N, A*K, Hi, Wi).
        labels: (N, R), R in the order (level, Hi, Wi, A).
        num_classes: K.

    Raises:
        ValueError: if channels are no multiple of K, or R is not the number of anchors.
    """
    sizes = []
    for level in logits:
        if level.dim() != 4 or level.shape[1] % num_classes != 0:
            raise ValueError(
                f"logits of a level must be (N, A*{num_classes}, Hi, Wi), got {tuple(level.shape)}"
            )
        sizes.append(math.prod(level.shape[1:]) // num_classes)
    if tuple(labels.shape) != (logits[0].shape[0], sum(sizes)):
        raise ValueError(
            f"labels must be {(logits[0].shape[0], sum(sizes))} for these logits and "
            f"num_classes {num_classes}, got {tuple(labels.shape)}"
        )
    return list(zip(logits, labels.split(sizes, dim=1), strict=True))


def level_view(level: Tensor, labels: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
    """Logits (N, A, K, Hi, Wi) and labels (N, A, 1, Hi, Wi) of one level.

    The logits are a view of the head's output, so nothing large is copied or transposed; only the
    labels, K times smaller, are brought into the head's order.

    Args:
        level: (N, A*K, Hi, Wi).
        labels: (N, Hi*Wi*A).
        num_classes: K.
    """
    n, channels, height, width = level.shape
    num_anchors = channels // num_classes
    return (
        level.view(n, num_anchors, num_classes, height, width),
        labels.reshape(n, height, width, num_anchors).permute(0, 3, 1, 2).unsqueeze(2),
    )
