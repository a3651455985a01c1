"""How far AP could be off with other images: intervals by the bootstrap, and of a difference.

Images are drawn with replacement. Detections are assigned once, since an image that is drawn twice
has the same matches twice; a draw then only weighs them.

Repeated images make the precision curve rougher, and AP, which takes the best precision from a
recall on, somewhat higher. So that the intervals are about the value that was measured, draws are
shifted until their mean is that value. In a difference of two runs nearly all of it cancels anyway.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ...errors import InputError
from .assignment import assign
from .curves import RECALLS, best_from_here, recalls_up_to
from .tables import Tables

__all__ = ["METRICS", "Interval", "bootstrap_ap", "bootstrap_difference"]

METRICS = ("AP", "AP50", "AP75")
IOUS = np.linspace(0.5, 0.95, 10)  # COCO's
ROWS = {"AP": slice(None), "AP50": slice(0, 1), "AP75": slice(5, 6)}
LOW, HIGH = 2.5, 97.5  # percentiles


@dataclass(frozen=True)
class Interval:
    """A value and what it is in draws of images, in points of 100.

    Attributes:
        value: with every image once.
        low, high: between which 95 % of the draws lie, shifted to have ``value`` as their mean.
        std_err: standard deviation over the draws.
        above_zero: share of the shifted draws that are above 0.
    """

    value: float
    low: float
    high: float
    std_err: float
    above_zero: float


def bootstrap_ap(
    tables: Tables, max_dets: int = 100, draws: int = 1000, seed: int = 0
) -> dict[str, Interval]:
    """Intervals of AP, AP50 and AP75.

    The mean is over the classes with objects in the draw.

    Args:
        tables: objects and detections.
        max_dets: detections of each image and class that count.
        draws: how often as many images as there are are drawn.
        seed: of the draws.

    Raises:
        ValueError: no image, or fewer than two draws.
    """
    return _intervals(_WeighedAP(tables, max_dets), tables, draws, seed)


def bootstrap_difference(
    first: Tables, second: Tables, max_dets: int = 100, draws: int = 1000, seed: int = 0
) -> dict[str, Interval]:
    """Intervals of how much AP, AP50 and AP75 of ``second`` are above those of ``first``.

    Each draw takes the same images of both, so that what makes an image hard for both cancels.

    Args:
        first, second: of the same images, classes and objects.
        max_dets, draws, seed: see :func:`bootstrap_ap`.

    Raises:
        ValueError: they differ in more than the detections, or as :func:`bootstrap_ap`.
    """
    if (first.image_ids, first.category_ids) != (second.image_ids, second.category_ids) or any(
        not np.array_equal(getattr(first.objects, name), getattr(second.objects, name))
        for name in ("image", "label", "box", "crowd")
    ):
        raise InputError(
            "the two sets of detections are of different images, classes or objects, so that their "
            "difference says nothing; evaluate both on the same annotations"
        )
    one, other = _WeighedAP(first, max_dets), _WeighedAP(second, max_dets)
    return _intervals(lambda weights: other(weights) - one(weights), first, draws, seed)


def _intervals(
    measure: Callable[[np.ndarray], np.ndarray], tables: Tables, draws: int, seed: int
) -> dict[str, Interval]:
    number = len(tables.image_ids)
    if number == 0 or draws < 2:
        raise InputError(
            f"a bootstrap needs images and two draws or more, but has {number} images and "
            f"{draws} draws; 1000 draws are usual"
        )
    rng = np.random.default_rng(seed)
    value = measure(np.ones(number, np.int64))
    drawn = np.stack(
        [
            measure(np.bincount(rng.integers(number, size=number), minlength=number))
            for _ in range(draws)
        ]
    )
    drawn += value - drawn.mean(axis=0)
    low, high = np.percentile(drawn, (LOW, HIGH), axis=0)
    spread, above = drawn.std(axis=0, ddof=1), (drawn > 0).mean(axis=0)
    return {
        name: Interval(*(float(x[i]) for x in (value, low, high, spread, above)))
        for i, name in enumerate(METRICS)
    }


class _WeighedAP:
    """AP, AP50 and AP75 where each image counts as often as it was drawn.

    Precision is needed only at the right detections: its best value from a recall on is at one of
    them. Segments are the classes at each IoU.
    """

    def __init__(self, tables: Tables, max_dets: int):
        detections, self.num_classes = tables.detections, tables.num_classes
        assignments = [assign(tables, float(iou), max_dets) for iou in IOUS]
        rows = np.flatnonzero(assignments[0].counted)
        rows = rows[np.lexsort((-detections.score[rows], detections.label[rows]))]
        label = detections.label[rows]
        start = np.searchsorted(label, np.arange(self.num_classes))  # of each class
        self.image = detections.image[rows]
        real = np.flatnonzero(~tables.objects.crowd)
        self.object_image, self.object_label = (
            tables.objects.image[real],
            tables.objects.label[real],
        )
        hits = [np.flatnonzero(x.right[rows]) for x in assignments]
        ignored = [np.flatnonzero(x.ignored[rows]) for x in assignments]
        before = np.cumsum([0, *(len(x) for x in ignored)])
        self.hit = np.concatenate(hits)
        self.hit_label = label[self.hit]
        self.segment = self.hit_label + self.num_classes * np.repeat(
            np.arange(len(IOUS)), [len(x) for x in hits]
        )
        self.hit_image = self.image[self.hit]
        self.class_start = start[self.hit_label]
        self.segment_start = np.searchsorted(self.segment, self.segment)
        # Of the ignored detections at an IoU, those before the class and those before the hit.
        self.ignored_image = self.image[np.concatenate(ignored)]
        pairs = list(zip(hits, ignored, before[:-1], strict=True))
        self.ignored_here = np.concatenate([b + np.searchsorted(i, h) for h, i, b in pairs])
        self.ignored_start = np.concatenate(
            [b + np.searchsorted(i, start[label[h]]) for h, i, b in pairs]
        )

    def __call__(self, weights: np.ndarray) -> np.ndarray:
        """(3,), METRICS in points of 100.

        Args:
            weights: (I,), how often each image counts.
        """
        num_objects = np.bincount(
            self.object_label, weights[self.object_image], self.num_classes
        ).astype(np.int64)
        weight = weights[self.hit_image]
        all_before, hits_before = _running(weights[self.image]), _running(weight)
        ignored_before = _running(weights[self.ignored_image])
        found = hits_before[1:] - hits_before[self.segment_start]
        shown = all_before[self.hit + 1] - all_before[self.class_start]
        shown -= ignored_before[self.ignored_here] - ignored_before[self.ignored_start]
        segments = len(IOUS) * self.num_classes
        best = best_from_here(found / np.maximum(shown, 1), self.segment, segments)
        of_hit = num_objects[self.hit_label]
        steps = recalls_up_to(found, of_hit) - recalls_up_to(found - weight, of_hit)
        total = np.bincount(self.segment, best * steps, segments) / len(RECALLS)
        there = num_objects > 0
        if not there.any():
            return np.zeros(len(METRICS))
        ap = total.reshape(len(IOUS), self.num_classes)[:, there]
        return np.array([ap[ROWS[name]].mean() * 100 for name in METRICS])


def _running(values: np.ndarray) -> np.ndarray:
    """Sums of the first 0, 1, ... values."""
    return np.concatenate([[0], np.cumsum(values)])
