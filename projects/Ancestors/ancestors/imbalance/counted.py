"""What anchors, cells, proposals or windows cost before and after the cure, and which are easy."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from retinanet_ext.losses import focal_loss

EASY = 0.9  # probability of background


@dataclass(frozen=True)
class Counted:
    """What a picture's R anchors, cells, proposals or windows cost.

    Attributes:
        before: (R,) cross entropy of each.
        after: (R,) what it counts in training.
        easy: (R,) whether it is easy background.
    """

    before: Tensor
    after: Tensor
    easy: Tensor


def by_sigmoid(
    logits: Tensor, labels: Tensor, classes: int, focal: tuple[float, float] | None = None
) -> Counted:
    """Of K sigmoids: cross entropy before, and after it the focal loss of gamma and alpha."""
    logits, labels = logits[labels >= 0], labels[labels >= 0]
    target = F.one_hot(labels, classes + 1)[:, :-1].to(logits)
    before = after = F.binary_cross_entropy_with_logits(logits, target, reduction="none").sum(1)
    if focal is not None:
        gamma, alpha = focal
        after = focal_loss(logits, target, alpha=alpha, gamma=gamma).sum(1)
    easy = (labels == classes) & (logits.sigmoid().amax(1) <= 1 - EASY)
    return Counted(before, after, easy)


def by_softmax(logits: Tensor, labels: Tensor, classes: int, after: Tensor) -> Counted:
    kept = labels >= 0
    before = F.cross_entropy(logits[kept], labels[kept], reduction="none")
    easy = (labels[kept] == classes) & (logits[kept].softmax(1)[:, -1] >= EASY)
    return Counted(before, after[kept], easy)
