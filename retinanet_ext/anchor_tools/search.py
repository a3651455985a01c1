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
import importlib
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..boxes import AnchorLevel
from ..errors import InputError, MissingPackageError
from .coverage import Coverage, coverage
from .fit import Fit
from .shape import AnchorShape, shape_of
from .training_boxes import TrainingBoxes

__all__ = ["METHODS", "Search", "search_anchors"]

METHODS = ("evolution", "kmeans")
MAX_BOXES = 3000  # that candidates are tried on; the result is measured on all of them
GENERATIONS, POPULATION = 30, 8  # of the evolution; candidates per generation and parameter
BASE_OCTAVES = 2.5  # how far the base size may go from that of the config
GOOD_RECALL = 0.995  # from which on anchors are left alone
BASES = 41  # tried by "kmeans" in that range


@dataclass(frozen=True)
class Search:
    """``shape`` and what it covers.

    Attributes:
        shape: None where what there is is to be kept: nothing better was found with as many
            anchors, or nothing needs to be better. ``after`` is ``before`` then, and ``fit_after``
            is ``fit_before``.
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
    for. No size is above the longest side of the views.

    "evolution" is SciPy's differential evolution over the base and all ratios at once, from the
    present anchors on. "kmeans" takes the centres of SciPy's k-means over the objects' log ratios,
    and the best one of ``BASES`` base sizes. Neither of the two numbers gets lower, on all boxes,
    unless fewer anchors than before were asked for.

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
    strides, offset = [x.stride for x in levels], levels[0].offset
    fewer = scales * num_ratios < max(len(x.cells) for x in levels)
    before = coverage(boxes, levels)
    fit_before = Fit.of(boxes.boxes, boxes.sizes_of_boxes, levels, iou)
    kept = Search(None, before, before, fit_before, fit_before)
    if fit_before.recall >= GOOD_RECALL and not chosen:
        return dataclasses.replace(kept, is_needless=True)
    largest = float(boxes.sizes.max())
    task = _Task.of(boxes, levels, scales, strides, offset, fewer, seed, iou, largest)
    if method == "evolution":
        base = min(present.base, largest)
        start = AnchorShape(base, scales, _start_ratios(present, num_ratios, boxes), largest)
        shape = _evolve(task, start, boxes, seed, generations)
    else:
        shape = _cluster(task, present.base, num_ratios, boxes)
    shape = shape.rounded()
    found = shape.levels(strides, offset)
    fit_after = Fit.of(boxes.boxes, boxes.sizes_of_boxes, found, iou)
    if not fewer and (fit_after.loses(fit_before) or not fit_after.is_better(fit_before)):
        return kept
    return Search(shape, before, coverage(boxes, found), fit_before, fit_after)


@dataclass(frozen=True, eq=False)
class _Task:
    """What a candidate is measured on, and against."""

    boxes: np.ndarray
    sizes: np.ndarray
    scales: int
    strides: list[float]
    offset: float
    iou: float
    largest: float
    floor: Fit | None  # not to fall below; None where fewer anchors are wanted

    @classmethod
    def of(
        cls,
        boxes: TrainingBoxes,
        levels: Sequence[AnchorLevel],
        scales: int,
        strides: list[float],
        offset: float,
        fewer: bool,
        seed: int,
        iou: float,
        largest: float,
    ) -> _Task:
        chosen = np.random.default_rng(seed).permutation(len(boxes.boxes))[:MAX_BOXES]
        part, sizes = boxes.boxes[chosen], boxes.sizes_of_boxes[chosen]
        floor = None if fewer else Fit.of(part, sizes, levels, iou)
        return cls(part, sizes, scales, strides, offset, iou, largest, floor)

    def gain(self, shape: AnchorShape) -> float:
        """What is maximised; lower than any where something falls below the floor."""
        levels = shape.levels(self.strides, self.offset)
        found = Fit.of(self.boxes, self.sizes, levels, self.iou)
        lost = self.floor is not None and found.loses(self.floor)
        return found.gain - 3 * lost

    def shape(self, logs: np.ndarray) -> AnchorShape:
        """From log2 of the base and of the ratios."""
        base, *ratios = np.exp2(logs).tolist()
        return AnchorShape(base, self.scales, tuple(sorted(ratios)), self.largest)


def _log_ratios(boxes: TrainingBoxes) -> np.ndarray:
    width, height = (boxes.boxes[:, 2:] - boxes.boxes[:, :2]).T
    return np.log2(height / width)


def _start_ratios(present: AnchorShape, number: int, boxes: TrainingBoxes) -> tuple[float, ...]:
    """The present ratios if there are as many, else those of the objects, evenly by rank."""
    if number == len(present.ratios):
        return present.ratios
    extra = number - len(present.ratios)
    new = extra if extra > 0 else number
    shares = (np.arange(new) + 0.5) / new
    of_objects = tuple(np.exp2(np.quantile(_log_ratios(boxes), shares)).tolist())
    return (*present.ratios, *of_objects) if extra > 0 else of_objects


def _evolve(
    task: _Task, start: AnchorShape, boxes: TrainingBoxes, seed: int, generations: int
) -> AnchorShape:
    optimize = _require_scipy("scipy.optimize")
    first = np.log2([start.base, *start.ratios])
    of_objects = np.quantile(_log_ratios(boxes), (0.01, 0.99))
    low, high = (f([*first[1:], *of_objects]) for f in (np.min, np.max))
    highest = min(first[0] + BASE_OCTAVES, np.log2(task.largest))
    bounds = [(first[0] - BASE_OCTAVES, highest)]
    bounds += [(low - 0.5, high + 0.5)] * len(start.ratios)
    result = optimize.differential_evolution(
        lambda logs: -task.gain(task.shape(logs)),
        bounds,
        x0=first,
        seed=seed,
        maxiter=generations,
        popsize=POPULATION,
        polish=False,  # recall is a staircase, which has no slope to follow
    )
    return task.shape(result.x)


def _cluster(task: _Task, base: float, num_ratios: int, boxes: TrainingBoxes) -> AnchorShape:
    vq = _require_scipy("scipy.cluster.vq")
    logs = _log_ratios(boxes)
    # A cluster without objects keeps its first centre: let no two of them be the same.
    first = np.quantile(logs, (np.arange(num_ratios) + 0.5) / num_ratios)
    first += 0.1 * (np.arange(num_ratios) - (num_ratios - 1) / 2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        centres, _ = vq.kmeans2(logs[:, None], first[:, None], minit="matrix")
    bases = np.log2(base) + np.linspace(-BASE_OCTAVES, BASE_OCTAVES, BASES)
    bases = np.minimum(bases, np.log2(task.largest))
    shapes = [task.shape(np.array([x, *centres[:, 0]])) for x in bases]
    return max(shapes, key=task.gain)


def _require_scipy(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingPackageError(
            "optimising anchors needs SciPy, which is not installed: pip install scipy"
        ) from error
