"""Online hard example mining: which anchors of an image are learned from.

Both forms of Lin et al., arXiv 1708.02002, Sec. 5.1 and Table 1d: every anchor is scored by its
loss, non-maximum suppression leaves out anchors that overlap one of higher loss, and the hardest of
what is left are taken, either all by rank (Shrivastava et al., arXiv 1604.03540) or with a fixed
ratio of positives to negatives (as in SSD, arXiv 1512.02325).

Letters: R anchors of one image, K classes.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torchvision.ops import nms

FIRST_CANDIDATES = 4096
"""How many anchors NMS looks at first; it continues to more only if too few are left."""


def hardest_anchors(
    losses: Tensor,
    labels: Tensor,
    batch_size: int,
    anchors: Tensor | None = None,
    nms_thresh: float = 1.0,
) -> Tensor:
    """Mask (R,) of the ``batch_size`` anchors of highest loss, positive or negative ("OHEM").

    Args:
        losses: (R,).
        labels: (R,); anchors labelled -1 are never taken.
        batch_size: how many to take; fewer where fewer are left.
        anchors: (R, 4), absolute XYXY pixels; needed where nms_thresh < 1.
        nms_thresh: an anchor is left out if its IoU with a harder one that is kept is above this;
            1 is no suppression.

    Raises:
        ValueError: if an argument is out of range, or anchors are needed and not given.
    """
    check_sampling_arguments(batch_size, nms_thresh)
    if batch_size == 0:
        raise ValueError("batch_size must be > 0 to take the hardest anchors, got 0")
    order = _by_loss(losses, labels)
    kept = _suppress(order, anchors, nms_thresh, lambda kept, _: len(kept) >= batch_size)
    return _mask(losses, kept[:batch_size])


def hardest_at_ratio(
    losses: Tensor,
    labels: Tensor,
    num_classes: int,
    neg_pos_ratio: float = 3.0,
    batch_size: int = 0,
    min_negatives: int = 3,
    anchors: Tensor | None = None,
    nms_thresh: float = 1.0,
) -> Tensor:
    """Mask (R,) of positives, and the hardest negatives in proportion to them ("OHEM 1:3").

    With no batch size and no suppression these are SSD's: all P positives and the
    ``neg_pos_ratio`` * P hardest negatives. With a batch size, as in the paper, at most
    batch_size / (1 + neg_pos_ratio) positives, the hardest, but at least one.

    Args:
        losses: (R,).
        labels: (R,) in {-1 ignore, 0..K-1 class, K background}; ignored anchors are never taken.
        num_classes: K.
        neg_pos_ratio: negatives per positive that is taken, rounded down to whole anchors.
        batch_size: 0 is no limit.
        min_negatives: taken at least, so that an image without objects teaches, too.
        anchors, nms_thresh: as in :func:`hardest_anchors`, but positives come before negatives of
            higher loss: no object is lost to its neighbourhood, and NMS need not rank every anchor
            to reach a positive that is easy.

    Raises:
        ValueError: if an argument is out of range, or anchors are needed and not given.
    """
    check_sampling_arguments(batch_size, nms_thresh, neg_pos_ratio, min_negatives)
    order = _by_loss(losses, labels)
    is_positive = labels < num_classes  # of those in order, where no label is -1
    order = torch.cat([order[is_positive[order]], order[~is_positive[order]]])
    num_positives = int(is_positive[order].sum())
    limit = num_positives
    if batch_size > 0:
        limit = max(1, int(batch_size / (1 + neg_pos_ratio)))

    def take(kept: Tensor) -> tuple[Tensor, Tensor, int]:
        positives = kept[is_positive[kept]][:limit]
        wanted = max(min_negatives, int(neg_pos_ratio * len(positives)))
        return positives, kept[~is_positive[kept]][:wanted], wanted

    def is_enough(kept: Tensor, num_seen: int) -> bool:
        _, negatives, wanted = take(kept)
        return num_seen >= num_positives and len(negatives) == wanted

    positives, negatives, _ = take(_suppress(order, anchors, nms_thresh, is_enough))
    return _mask(losses, torch.cat([positives, negatives]))


def _by_loss(losses: Tensor, labels: Tensor) -> Tensor:
    """Indices of the anchors that are not ignored, highest loss first, equal ones in order."""
    valid = (labels >= 0).nonzero().squeeze(1)
    return valid[losses.detach()[valid].sort(descending=True, stable=True).indices]


def _suppress(
    order: Tensor,
    anchors: Tensor | None,
    nms_thresh: float,
    is_enough: Callable[[Tensor, int], bool],
) -> Tensor:
    """The anchors of ``order`` that NMS leaves, in that order, up to where ``is_enough`` holds.

    Whether an anchor is left depends only on those before it, so the first part of ``order`` gives
    the first part of the result; NMS of all R at once would take memory that grows with R squared.

    Args:
        order: indices, hardest first.
        anchors, nms_thresh: as in :func:`hardest_anchors`.
        is_enough: is given what is left, and of how many.
    """
    if nms_thresh >= 1:
        return order
    if anchors is None:
        raise ValueError(f"NMS at {nms_thresh} needs the anchors; give them, or take nms_thresh 1")
    size = FIRST_CANDIDATES
    while True:
        seen = order[:size]
        # Ranks in place of losses: equal losses are suppressed in the same order on every device.
        scores = torch.arange(len(seen), 0, -1, device=anchors.device, dtype=torch.float32)
        kept = seen[nms(anchors[seen].float(), scores, nms_thresh)]
        if size >= len(order) or is_enough(kept, size):
            return kept
        size *= 4


def _mask(losses: Tensor, indices: Tensor) -> Tensor:
    mask = torch.zeros_like(losses, dtype=torch.bool)
    mask[indices] = True
    return mask


def check_sampling_arguments(
    batch_size: int, nms_thresh: float, neg_pos_ratio: float = 3.0, min_negatives: int = 0
) -> None:
    """Raise ValueError unless every number is in its range."""
    if batch_size < 0:
        raise ValueError(f"batch_size must be >= 0, got {batch_size}")
    if not 0 < nms_thresh <= 1:
        raise ValueError(f"nms_thresh must be in (0, 1], 1 for no suppression, got {nms_thresh}")
    if not neg_pos_ratio >= 0:
        raise ValueError(f"neg_pos_ratio must be >= 0, got {neg_pos_ratio}")
    if min_negatives < 0:
        raise ValueError(f"min_negatives must be >= 0, got {min_negatives}")
