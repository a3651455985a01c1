"""Weighted boxes fusion (Solovyev et al. 2021, https://arxiv.org/abs/1910.13302).

Letters: M sources (models, or views of a picture), N boxes of all of them, C fused boxes.
"""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np

from ...errors import InputError

__all__ = ["SCORE_RULES", "fuse_boxes"]

SCORE_RULES = ("avg", "max", "box_and_model_avg", "absent_model_aware_avg")
"""How the score of a fused box follows from those of its boxes; names of the authors' package."""


def fuse_boxes(
    boxes: np.ndarray,
    scores: np.ndarray,
    classes: np.ndarray,
    sources: np.ndarray,
    weights: Sequence[float],
    iou_thresh: float = 0.55,
    score_rule: str = "avg",
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Average the boxes of one object, weighted by their scores, in double precision.

    From the best score down, a box joins the fused box of its class that it overlaps most, by more
    than ``iou_thresh``, or begins one. Of equal scores the first comes first.

    Args:
        boxes: (N, 4) XYXY in any unit.
        scores: (N,) in [0, 1].
        classes: (N,) whole numbers.
        sources: (N,) whole numbers in [0, M).
        weights: (M,), positive, how much each source counts.
        iou_thresh: in [0, 1].
        score_rule: one of :data:`SCORE_RULES`. With "avg" it is the mean of weighted scores, times
            the share of sources that took part, so that it stays in [0, 1].

    Returns:
        Boxes (C, 4), scores (C,), classes (C,), best first.

    Raises:
        ValueError: arrays that do not fit each other, or values out of range.
    """
    boxes = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    scores = np.asarray(scores, dtype=np.float64)
    classes, sources = np.asarray(classes, dtype=np.int64), np.asarray(sources, dtype=np.int64)
    share = np.asarray(weights, dtype=np.float64)
    _check(boxes, scores, classes, sources, share, iou_thresh, score_rule)
    weighted = scores * share[sources]
    order = np.argsort(-weighted, kind="stable")
    fused = [
        _fuse_class(x, boxes, weighted, sources, share, iou_thresh, score_rule)
        for x in (order[classes[order] == label] for label in np.unique(classes))
    ]
    out_boxes = np.concatenate([np.zeros((0, 4)), *(x[0] for x in fused)])
    out_scores = np.concatenate([np.zeros(0), *(x[1] for x in fused)])
    out_classes = np.repeat(np.unique(classes), [len(x[0]) for x in fused])
    best = np.argsort(-out_scores, kind="stable")
    return out_boxes[best], out_scores[best], out_classes[best]


def _fuse_class(
    order: np.ndarray,
    boxes: np.ndarray,
    weighted: np.ndarray,
    sources: np.ndarray,
    weights: np.ndarray,
    iou_thresh: float,
    score_rule: str,
) -> tuple[np.ndarray, np.ndarray]:
    """Fused boxes and scores of one class; ``order`` are its boxes, best first.

    Fused boxes are found again by the cells of a grid that they lie in, so that the time does not
    grow with the square of their number.
    """
    rows, values = boxes[order].tolist(), weighted[order].tolist()
    cell = 2 * float((boxes[order, 2:] - boxes[order, :2]).mean()) or 1.0
    fused: list[list[float]] = []
    sums: list[list[float]] = []
    members: list[list[int]] = []
    grid: defaultdict[tuple[int, int], set[int]] = defaultdict(set)
    for i, box, value in zip(order.tolist(), rows, values, strict=True):
        near = set().union(*(grid[x] for x in _cells(box, cell) if x in grid))
        match, best = len(members), iou_thresh
        for j in sorted(near):
            overlap = _iou(fused[j], box)
            if overlap > best:
                match, best = j, overlap
        if match == len(members):
            members.append([])
            sums.append([0.0] * 5)
            fused.append(box)
        members[match].append(i)
        total = [x + value * y for x, y in zip(sums[match], (*box, 1.0), strict=True)]
        sums[match] = total
        if total[4]:  # boxes of score 0 have no weight: the first one stays
            fused[match] = [x / total[4] for x in total[:4]]
        for x in _cells(fused[match], cell):
            grid[x].add(match)
    rule = _SCORES[score_rule]
    scores = [rule(weighted[x], sources[x], weights) for x in members]
    return np.array(fused), np.array(scores)


def _cells(box: Sequence[float], size: float) -> Iterator[tuple[int, int]]:
    """The cells of a grid, ``size`` wide and high, that a box reaches into."""
    left, top, right, bottom = (math.floor(x / size) for x in box)
    return itertools.product(range(left, right + 1), range(top, bottom + 1))


def _iou(a: Sequence[float], b: Sequence[float]) -> float:
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    inner = width * height
    areas = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
    return inner / (areas - inner)


def _avg(scores: np.ndarray, sources: np.ndarray, weights: np.ndarray) -> float:
    return scores.mean() * min(len(weights), len(scores)) / weights.sum()


def _max(scores: np.ndarray, sources: np.ndarray, weights: np.ndarray) -> float:
    return scores.max() / weights.max()


def _box_and_model_avg(scores: np.ndarray, sources: np.ndarray, weights: np.ndarray) -> float:
    seen = weights[np.unique(sources)].sum() / weights.sum()
    return scores.sum() / weights[sources].sum() * seen


def _absent_model_aware_avg(scores: np.ndarray, sources: np.ndarray, weights: np.ndarray) -> float:
    absent = weights.sum() - weights[np.unique(sources)].sum()
    return scores.sum() / (weights[sources].sum() + absent)


_SCORES = dict(
    zip(SCORE_RULES, (_avg, _max, _box_and_model_avg, _absent_model_aware_avg), strict=True)
)


def _check(
    boxes: np.ndarray,
    scores: np.ndarray,
    classes: np.ndarray,
    sources: np.ndarray,
    weights: np.ndarray,
    iou_thresh: float,
    score_rule: str,
) -> None:
    lengths = [len(x) for x in (boxes, scores, classes, sources)]
    if len(set(lengths)) > 1:
        raise InputError(f"{lengths} boxes, scores, classes and sources: give one of each per box")
    if not np.isfinite(boxes).all() or (boxes[:, 2:] < boxes[:, :2]).any():
        raise InputError("boxes must be finite XYXY with x1 <= x2 and y1 <= y2")
    if not ((scores >= 0) & (scores <= 1)).all():
        raise InputError("scores must be in [0, 1]")
    if not len(weights) or not (np.isfinite(weights) & (weights > 0)).all():
        raise InputError(f"weights are {weights.tolist()}; give a positive one for each source")
    if len(sources) and not 0 <= sources.min() <= sources.max() < len(weights):
        raise InputError(f"sources must be in [0, {len(weights)}), the number of weights")
    if not 0 <= iou_thresh <= 1:
        raise InputError(f"iou_thresh is {iou_thresh}; it must be in [0, 1]")
    if score_rule not in SCORE_RULES:
        raise InputError(f"score_rule is '{score_rule}'; use one of {', '.join(SCORE_RULES)}")
