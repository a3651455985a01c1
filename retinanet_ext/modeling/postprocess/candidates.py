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
from .large_logits import LOGIT_MARGIN, divide, find_by_level, find_in_copy

SCORE_RULES = ("sqrt_pq", "pq", "p")
"""Values of MODEL.RETINANET.SCORE_RULE: what the score is of p of the class and q of the box."""

# From this threshold on so few scores pass that a list of all of them takes little memory.
_FEW_PASS = 0.01

SMALL = 2**18
"""Up to so many logits of a batch, a copy in Detectron2's order costs less than one level after the
other: on one core 0.3 ms where those took 0.5 ms (77,000 logits), and as much at 300,000."""


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
    limit = score_threshold_to_logit(score_thresh) - LOGIT_MARGIN
    same_anchors = len({int(level.shape[1]) for level in logits}) == 1
    # A trace follows any size only where no number of Python depends on how many logits pass.
    at_once = logits[0].device.type != "cpu" or torch.jit.is_tracing()
    if at_once and same_anchors and score_thresh >= _FEW_PASS:
        return select_at_once(logits, num_classes, score_thresh, topk)
    refuse_trace(
        f"a score threshold below {_FEW_PASS}" if same_anchors else "levels that differ in anchors"
    )
    *starts, image_size = accumulate((math.prod(level.shape[1:]) for level in logits), initial=0)
    in_copy = len(logits[0]) * image_size <= SMALL
    if in_copy:
        values, entry = find_in_copy(logits, limit)
    else:
        values, entry = find_by_level(logits, num_classes, limit, topk, starts, image_size)
    scores = at_least_float32(values).sigmoid()
    (passed,) = (scores > score_thresh).nonzero(as_tuple=True)
    scores, entry = scores[passed], entry[passed]
    if not in_copy:  # Detectron2's order, so that topk resolves equal scores the same way
        entry, order = entry.sort()  # in (N, L, Hi, Wi, A, K)
        scores = scores[order]
    groups = [i * image_size + start for i in range(len(logits[0])) for start in starts]
    bounds = torch.searchsorted(entry, torch.tensor(groups, device=entry.device)).tolist()
    best = [
        scores[start:stop].topk(min(topk, stop - start)).indices + start
        for start, stop in pairwise([*bounds, len(entry)])
    ]
    chosen = torch.cat(best)
    image_indices, entry = divide(entry[chosen], image_size)
    return Candidates(scores[chosen], image_indices, *divide(entry, num_classes))


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
    limit = score_threshold_to_logit(score_thresh) - LOGIT_MARGIN
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
    return Candidates(scores[kept], image[chosen], *divide(entry[chosen], num_classes))
