"""What to do about anchors, in words: keep them, take others, or take larger pictures."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from tabulate import tabulate

from ..boxes import AnchorLevel, best_anchor_iou
from ..data.doctor import DatasetTable
from .coverage import SIZES, size_classes
from .fit import CLEAR_RECALL, ENOUGH
from .search import Search
from .training_boxes import TrainingBoxes, resized_boxes

__all__ = ["compare_sizes", "larger_pictures", "verdict"]

# Recall below which anchors alone are not the cure, and shorter sides of pictures to look at.
LOW_RECALL = 0.95
SHORTS = (256, 320, 400, 480, 560, 640, 720, 800, 960, 1120, 1280)
ENLARGED = 2.0  # beyond this, the files have nothing more to show
MORE = 0.01  # recall that a still larger picture has to bring


def verdict(search: Search, iou: float) -> str:
    """A search's result in a sentence."""
    before, after = search.fit_before, search.fit_after
    if search.is_needless:
        return f"Recall at IoU {iou:g} is {_percent(before.recall)} already: keep yours."
    if search.shape is None:
        return (
            "No other anchors were found that are clearly better and cost no size of objects: "
            "keep yours."
        )
    number = search.before.boxes
    lacking = [round(number * (1 - x.recall)) for x in (before, after)]
    kind = "Better" if after.gain > before.gain else "With these"
    return (
        f"{kind}: {lacking[0]} of {number} objects have no anchor of IoU {iou:g} now, and "
        f"{lacking[1]} with these; {ENOUGH} or more can be expected by {_percent(before.enough)} "
        f"and {_percent(after.enough)}."
    )


def compare_sizes(search: Search) -> str:
    """A table of small, medium and large objects, with the present anchors and the new ones."""
    rows = []
    for name, before in search.fit_before.by_size.items():
        after = search.fit_after.by_size[name]
        rows.append(
            [
                f"{name} ({_percent(before.share)})",
                f"{_percent(before.recall)} -> {_percent(after.recall)}",
                f"{before.mean_best_iou:.3f} -> {after.mean_best_iou:.3f}",
                f"{before.positives:.1f} -> {after.positives:.1f}",
            ]
        )
    return tabulate(rows, ["objects", "recall", "mean best IoU", "positive anchors"])


def larger_pictures(
    table: DatasetTable,
    boxes: TrainingBoxes,
    present: Sequence[AnchorLevel],
    found: Sequence[AnchorLevel],
    shorts: Sequence[float],
    long: float,
    divisor: int,
    iou: float,
) -> str:
    """Where small objects lack anchors because pictures are too small: what size would do.

    A size is advised where it brings as much recall as anchors would have to, and more than the
    best ones that are known do.

    Args:
        table: the training set.
        boxes: what training sees of it.
        present: the config's anchors.
        found: the best ones that are known for these pictures, ``present`` itself where it is
            kept; with them, few objects would lack anchors if anchors were the fault.
        shorts, long: INPUT.MIN_SIZE_TRAIN and MAX_SIZE_TRAIN.
        divisor: of padding.
        iou: from which on an anchor is positive.

    Returns:
        A sentence that goes with the verdict of the search, or "" where that is not the fault or
        no size would help.
    """
    small = size_classes(boxes.boxes) == SIZES.index("small")
    missed, left = _missed(boxes, present, iou), _missed(boxes, found, iou)
    if left.mean() <= 1 - LOW_RECALL or (left & small).sum() < left.sum() / 2:
        return ""
    native = float(np.nanmedian(table.sizes.min(axis=1)))
    now = max(shorts) or native
    best, best_recall = 0, 0.0
    needed = 1 - min(float(missed.mean()) - CLEAR_RECALL, float(left.mean()) - MORE)
    for short in SHORTS:
        if not now < short <= ENLARGED * native:
            continue
        larger = resized_boxes(table, (short,), long * short / now, divisor)
        recall = 1 - float(_missed(larger, present, iou).mean())
        if recall >= needed:
            best, best_recall, needed = short, recall, recall + MORE
        if recall >= LOW_RECALL:
            break
    if not best:
        return ""
    kept = found is present
    start = "Larger pictures help" if kept else "Or keep yours and take larger pictures"
    return (
        f"{start}: at {now:g} px {_percent(missed[small].mean())} of the small objects have no "
        f"anchor of yours; with INPUT.MIN_SIZE_TRAIN ({best},) and MAX_SIZE_TRAIN "
        f"{round(long * best / now)} {_percent(best_recall)} of all objects have one. Set "
        "MIN_SIZE_TEST and MAX_SIZE_TEST alike."
    )


def _missed(boxes: TrainingBoxes, levels: Sequence[AnchorLevel], iou: float) -> np.ndarray:
    """(n,) bool: objects without an anchor."""
    return np.asarray(best_anchor_iou(boxes.boxes, boxes.sizes_of_boxes, levels) < iou)


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"
