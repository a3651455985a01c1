"""Search of the anchors' base size and aspect ratios that fit a training set.

What training needs of anchors: that an object has one that is positive by the assigner's threshold
(recall), that it has several (they all learn it), and that little is left to regress (mean best
IoU).

The levels keep the paper's form: the base size doubles as the stride does, each level has the same
number of scales and the same ratios (Sec. 4, "Anchors"). The coverage of a candidate is exact; no
matrix of IoUs is made.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from ..boxes import AnchorLevel
from ..errors import InputError
from .candidates import GENERATIONS, METHODS, Objective, candidates
from .coverage import Coverage, coverage
from .fit import Fit
from .shape import AnchorShape, shape_of
from .training_boxes import TrainingBoxes

__all__ = ["METHODS", "Search", "search_anchors"]

GOOD_RECALL = 0.995  # from which on anchors are left alone
SIMPLER = 0.15  # gain that is given up for fewer changed numbers, or rounder ones


@dataclass(frozen=True)
class Search:
    """``shape`` and what it covers.

    Attributes:
        shape: None where what there is is to be kept: nothing clearly better was found with as
            many anchors, or nothing needs to be better. ``after`` is ``before`` then, and
            ``fit_after`` is ``fit_before``.
        before, after: coverage of the present and the new anchors.
        fit_before, fit_after: the same in what is searched for.
        is_needless: recall was all there is already, so nothing was searched for.
    """

    shape: AnchorShape | None
    before: Coverage
    after: Coverage
    fit_before: Fit
    fit_after: Fit
    is_needless: bool = False


def search_anchors(
    boxes: TrainingBoxes,
    levels: Sequence[AnchorLevel],
    scales: int | None = None,
    num_ratios: int | None = None,
    method: str = "evolution",
    seed: int = 0,
    generations: int = GENERATIONS,
    iou: float = 0.5,
) -> Search:
    """Look for anchors that fit better, where there is something to win.

    Anchors of which nearly all objects have one are kept, unless another number of them is asked
    for; and so are those where nothing is clearly better (:meth:`.fit.Fit.is_better`). No size is
    above the longest side of the views.

    "evolution" is SciPy's differential evolution over the base and all ratios at once, from the
    present anchors on. "kmeans" takes the centres of SciPy's k-means over the objects' log ratios,
    and the best one of many base sizes. Of what changes only the base, only the ratios, or both,
    the first is taken that fits nearly as well as the best.

    Unless fewer anchors than before were asked for, neither recall nor mean best IoU gets lower on
    all boxes, and for small, medium and large ones by no more than ``RECALL_TOLERANCE`` and
    ``IOU_TOLERANCE``, nor their mean number of positive anchors by a larger share than
    ``POSITIVES_TOLERANCE`` (:mod:`.fit`). Without that, a mean over all objects hides that many
    small ones gain what fewer large ones lose: smaller bases take objects to coarser levels, where
    fewer anchors learn each.

    Args:
        boxes: the training set.
        levels: the present anchors.
        scales, num_ratios: per location of a level; as many as the first level has by default.
        method: of ``METHODS``.
        seed: the result is the same for the same one.
        generations: of the evolution.
        iou: from which on an anchor is positive, the last of MODEL.RETINANET.IOU_THRESHOLDS.

    Raises:
        ValueError: a number or the method is none of those possible.
        ImportError: SciPy is not installed.
    """
    present = shape_of(levels[0])
    chosen = scales is not None or num_ratios is not None
    scales = present.scales if scales is None else scales
    num_ratios = len(present.ratios) if num_ratios is None else num_ratios
    for name, number in (("scales per octave", scales), ("ratios", num_ratios)):
        if number < 1:
            raise InputError(f"the number of {name} must be at least 1, got {number}")
    if method not in METHODS:
        raise InputError(f"method is '{method}'; use one of {', '.join(METHODS)}")
    fewer = scales * num_ratios < max(len(x.cells) for x in levels)
    before = coverage(boxes, levels)
    fit_before = _fit(boxes, levels, iou)
    kept = Search(None, before, before, fit_before, fit_before)
    if fit_before.recall >= GOOD_RECALL and not chosen:
        return dataclasses.replace(kept, is_needless=True)
    objective = Objective.of(boxes, levels, scales, present, fewer, seed, iou)
    shapes = candidates(objective, boxes, num_ratios, method, seed, generations)
    strides, offset = objective.strides, objective.offset
    fits = [_fit(boxes, x.levels(strides, offset), iou) for x in shapes]
    good = [
        (shape, fit)
        for shape, fit in zip(shapes, fits, strict=True)
        if fewer or (_is_worth_it(fit, fit_before, chosen) and not fit.loses(fit_before))
    ]
    if not good:
        return kept
    enough = max(fit.gain for _, fit in good) - SIMPLER
    shape, fit_after = next(x for x in good if x[1].gain >= enough)
    return Search(
        shape, before, coverage(boxes, shape.levels(strides, offset)), fit_before, fit_after
    )


def _is_worth_it(after: Fit, before: Fit, chosen: bool) -> bool:
    """A clear gain; any, where the user asks for other numbers of anchors."""
    return after.gain > before.gain if chosen else after.is_better(before)


def _fit(boxes: TrainingBoxes, levels: Sequence[AnchorLevel], iou: float) -> Fit:
    return Fit.of(boxes.boxes, boxes.sizes_of_boxes, levels, iou)
