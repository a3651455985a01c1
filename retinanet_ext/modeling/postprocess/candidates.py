"""Selection of the few logits of a batch that can become detections.

Letters: N images, L levels, A anchors per location (levels may differ in it), K classes, R anchors
over all levels, Hi x Wi locations of level i, T candidates.
"""

from __future__ import annotations

import math
from itertools import accumulate, pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ...errors import InputError
from ...losses.precision import at_least_float32

SCORE_RULES = ("sqrt_pq", "pq", "p")
"""Values of MODEL.RETINANET.SCORE_RULE: what the score is of p of the class and q of the box."""

# A logit this far under another one cannot round to a score above the other's.
_LOGIT_MARGIN = 1e-3

# From this threshold on so few scores pass that a list of all of them takes little memory.
_FEW_PASS = 0.01

# Logits whose maximum decides whether any of them is looked at.
_BLOCK = 64


class Candidates(NamedTuple):
    """T scored entries of a batch, sorted by image, then level, then best first."""

    scores: Tensor  # (T,) in (0, 1]
    image_indices: Tensor  # (T,) in [0, N)
    anchor_indices: Tensor  # (T,) in [0, R)
    classes: Tensor  # (T,) in [0, K)


def score_threshold_to_logit(score_thresh: float) -> float:
    """The logit whose sigmoid is ``score_thresh``; infinite for 0 and 1."""
    if score_thresh <= 0:
        return -math.inf
    if score_thresh >= 1:
        return math.inf
    return math.log(score_thresh / (1 - score_thresh))


def select_candidates(
    logits: list[Tensor], num_classes: int, score_thresh: float, topk: int
) -> Candidates:
    """The ``topk`` best scores above ``score_thresh`` of each image and level.

    Only the few logits that can pass are turned into scores, straight from the head's layout. NaN
    logits never pass.

    Args:
        logits: L tensors (N, A*K, Hi, Wi), N at least 1; contiguous or channels_last, or they are
            copied.
        num_classes: K.
        score_thresh: scores must be greater.
        topk: at most so many are returned of each image and level.
    """
    limit = score_threshold_to_logit(score_thresh) - _LOGIT_MARGIN
    same_anchors = len({int(level.shape[1]) for level in logits}) == 1
    # A trace follows any size only where no number of Python depends on how many logits pass.
    at_once = logits[0].device.type != "cpu" or torch.jit.is_tracing()
    if at_once and same_anchors and score_thresh >= _FEW_PASS:
        return select_at_once(logits, num_classes, score_thresh, topk)
    refuse_trace(
        f"a score threshold below {_FEW_PASS}" if same_anchors else "levels that differ in anchors"
    )
    *starts, image_size = accumulate((math.prod(level.shape[1:]) for level in logits), initial=0)
    values, entries = [], []
    for level, start in zip(logits, starts, strict=True):
        value, image, entry = _find_large(level, num_classes, limit, topk)
        values.append(value)
        entries.append(image * image_size + start + entry)
    scores = at_least_float32(torch.cat(values)).sigmoid()
    passed = scores > score_thresh
    # Detectron2's order, so that topk resolves equal scores the same way.
    entry, order = torch.cat(entries)[passed].sort()  # in (N, L, Hi, Wi, A, K)
    scores = scores[passed][order]
    groups = [i * image_size + start for i in range(len(logits[0])) for start in starts]
    bounds = torch.searchsorted(entry, torch.tensor(groups, device=entry.device)).tolist()
    best = [
        scores[start:stop].topk(min(topk, stop - start)).indices + start
        for start, stop in pairwise([*bounds, len(entry)])
    ]
    chosen = torch.cat(best)
    image_indices, entry = _divmod(entry[chosen], image_size)
    return Candidates(scores[chosen], image_indices, *_divmod(entry, num_classes))


def joint_scores(probs: Tensor, quality: Tensor, rule: str) -> Tensor:
    """The scores of ``rule``, out of p of a class and q of the box; both of one shape, in [0, 1]"""
    if rule == "p":
        return probs
    return probs * quality if rule == "pq" else (probs * quality).sqrt()


def joint_logits(
    logits: list[Tensor], quality: list[Tensor], rule: str = "sqrt_pq"
) -> list[Tensor]:
    """Logits of the scores of :func:`joint_scores`, in the layout of ``logits``.

    Args:
        logits: L tensors (N, A*K, Hi, Wi).
        quality: L tensors (N, A, Hi, Wi), logits too.
        rule: one of :data:`SCORE_RULES`.
    """
    if rule == "p":
        return logits
    parts = 1 if rule == "pq" else 2
    joint = []
    for of_classes, of_boxes in zip(logits, quality, strict=True):
        of_boxes = at_least_float32(of_boxes)
        of_classes = at_least_float32(of_classes).unflatten(1, (of_boxes.shape[1], -1))
        log_score = (F.logsigmoid(of_classes) + F.logsigmoid(of_boxes)[:, :, None]) / parts
        joint.append((log_score - (-torch.expm1(log_score)).log()).flatten(1, 2))
    return joint


def refuse_trace(what: str) -> None:
    """Raise InputError in a trace, which would keep numbers of its example picture.

    Args:
        what: rules a trace out.
    """
    if torch.jit.is_tracing():
        raise InputError(
            f"{what} cannot be traced: the trace would answer every picture with the counts of "
            "its example"
        )


def select_at_once(
    logits: list[Tensor], num_classes: int, score_thresh: float, topk: int
) -> Candidates:
    """:func:`select_candidates` for GPUs: all levels together, in few operations.

    A copy of the logits costs less there than the kernel launches of level after level. The host
    waits twice, to learn how many logits and how many candidates there are.

    Args:
        logits: with the same A on all levels.
    """
    whole = torch.cat([level.permute(0, 2, 3, 1).flatten(1, 2) for level in logits], dim=1)
    channels, device = whole.shape[2], whole.device
    flat = whole.flatten(1)  # (N, R*K)
    limit = score_threshold_to_logit(score_thresh) - _LOGIT_MARGIN
    # Not a number in Python: that would be rounded to the logits' precision, perhaps upwards.
    limits = torch.full((len(flat), 1), limit, device=device)
    image, entry = (flat > limits).nonzero(as_tuple=True)  # in (N, L, Hi, Wi, A, K)
    scores = at_least_float32(flat[image, entry]).sigmoid()
    sizes = [level.shape[2] * level.shape[3] * channels for level in logits]
    # Sizes are tensors in a trace, which has to follow them.
    ends = torch.stack([torch.as_tensor(end) for end in accumulate(sizes)]).to(device)
    group = image * len(logits) + torch.searchsorted(ends, entry, right=True)
    # Of equal scores the first comes first, as in Detectron2's sort.
    order = scores.sort(descending=True, stable=True).indices
    order = order[group[order].sort(stable=True).indices]
    group, scores = group[order], scores[order]
    groups = torch.arange(len(flat) * len(logits), device=device)
    rank = torch.arange(group.shape[0], device=device) - torch.searchsorted(group, groups)[group]
    kept = ((rank < topk) & (scores > score_thresh)).nonzero().flatten()
    chosen = order[kept]
    return Candidates(scores[kept], image[chosen], *_divmod(entry[chosen], num_classes))


def _find_large(
    level: Tensor, num_classes: int, limit: float, topk: int
) -> tuple[Tensor, Tensor, Tensor]:
    """All logits above ``limit``, or fewer that hold the ``topk`` largest of each image.

    Returns:
        Of each: the value, its image, and its entry in the image's (Hi, Wi, A, K).
    """
    in_memory_order = level
    channels_last = not level.is_contiguous() and level.is_contiguous(
        memory_format=torch.channels_last
    )
    if channels_last:
        in_memory_order = level.permute(0, 2, 3, 1)
    flat = in_memory_order.flatten(1)
    image, position = _find_above(flat, limit, topk)
    value = flat[image, position]
    if channels_last:
        return value, image, position
    channel, location = _divmod(position, level.shape[2] * level.shape[3])
    anchor, class_ = _divmod(channel, num_classes)
    num_anchors = level.shape[1] // num_classes
    return value, image, (location * num_anchors + anchor) * num_classes + class_


def _find_above(rows: Tensor, limit: float, topk: int) -> tuple[Tensor, Tensor]:
    """Row and column of all values above ``limit``, or of fewer with the ``topk`` largest of a row.

    Everything is read once, for the maxima of blocks, and again only the blocks that matter: far
    cheaper than ``nonzero`` of everything.

    Args:
        rows: (N, S).
    """
    size = rows.shape[1] - rows.shape[1] % _BLOCK
    blocks, rest = rows[:, :size].unflatten(1, (-1, _BLOCK)), rows[:, size:]
    maxima = blocks.amax(dim=2)  # (N, number of blocks)
    # Not a number in Python: that would be rounded to the logits' precision, perhaps upwards.
    limits = torch.full((len(rows), 1), limit, device=rows.device)
    row, block = _not_below(maxima, limits)
    if len(row) > topk and maxima.shape[1] >= topk:
        # At least topk values of a row reach the topk-th of its maxima: only those can be wanted.
        ranked = maxima.float().nan_to_num(nan=-math.inf, neginf=-math.inf)
        kth = ranked.topk(topk, dim=1).values[:, -1:]
        limits = limits.maximum(kth - _LOGIT_MARGIN - 1e-6 * kth.abs())
        row, block = _not_below(maxima, limits)
    inner_row, inner_column = (blocks[row, block] > limits[row]).nonzero(as_tuple=True)
    rest_row, rest_column = (rest > limits).nonzero(as_tuple=True)
    return (
        torch.cat([row[inner_row], rest_row]),
        torch.cat([block[inner_row] * _BLOCK + inner_column, rest_column + size]),
    )


def _not_below(maxima: Tensor, limits: Tensor) -> tuple[Tensor, Tensor]:
    """Row and column of maxima (N, B) above the limits (N, 1), or NaN, which hides the others."""
    row, column = (maxima <= limits).logical_not_().nonzero(as_tuple=True)
    return row, column


def _divmod(x: Tensor, divisor: int) -> tuple[Tensor, Tensor]:
    """Quotient and remainder of x >= 0."""
    quotient = torch.div(x, divisor, rounding_mode="floor")
    return quotient, x - quotient * divisor
