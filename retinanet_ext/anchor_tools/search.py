"""Search of the anchors' base size and aspect ratios that fit a training set.

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

from ..boxes import AnchorLevel, best_anchor_iou
from ..errors import InputError, MissingPackageError
from ..modeling.anchors import octave_sizes
from .coverage import Coverage, coverage
from .training_boxes import TrainingBoxes

__all__ = ["METHODS", "AnchorShape", "Search", "search_anchors"]

METHODS = ("evolution", "kmeans")
MAX_BOXES = 3000  # that candidates are tried on; the result is measured on all of them
GENERATIONS, POPULATION = 30, 8  # of the evolution; candidates per generation and parameter
BASE_OCTAVES = 2.5  # how far the base size may go from that of the config
BASES = 41  # tried by "kmeans" in that range


@dataclass(frozen=True)
class AnchorShape:
    """Anchors of all levels.

    Attributes:
        base: square root of the smallest anchor's area on the first level, in pixels.
        scales: sizes per octave.
        ratios: height / width, rising.
    """

    base: float
    scales: int
    ratios: tuple[float, ...]

    def octave_base_sizes(self, strides: Sequence[float]) -> list[float]:
        """One per level: the base grows as the stride does."""
        return [self.base * stride / strides[0] for stride in strides]

    def levels(self, strides: Sequence[float], offset: float) -> list[AnchorLevel]:
        """The anchors of each level."""
        sizes = octave_sizes(self.octave_base_sizes(strides), self.scales)
        # height / width = ratio and height * width = size^2
        width = [np.divide.outer(np.asarray(x), np.sqrt(self.ratios)).ravel() for x in sizes]
        height = [np.multiply.outer(np.asarray(x), np.sqrt(self.ratios)).ravel() for x in sizes]
        return [
            AnchorLevel(stride, np.stack([-w, -h, w, h], axis=1) / 2, offset)
            for stride, w, h in zip(strides, width, height, strict=True)
        ]

    def rounded(self) -> AnchorShape:
        """As it is written to a config: the first base to 0.1 pixels, ratios to 3 digits."""
        ratios = tuple(sorted(round(x, 3) for x in self.ratios))
        return dataclasses.replace(self, base=round(self.base, 1), ratios=ratios)


@dataclass(frozen=True)
class Search:
    """``shape`` and what it covers; ``shape`` is None where the search found nothing better with
    as many anchors as ``before`` has, and ``after`` then is ``before``."""

    shape: AnchorShape | None
    before: Coverage
    after: Coverage


def search_anchors(
    boxes: TrainingBoxes,
    levels: Sequence[AnchorLevel],
    scales: int | None = None,
    num_ratios: int | None = None,
    method: str = "evolution",
    seed: int = 0,
    generations: int = GENERATIONS,
) -> Search:
    """Look for anchors with a higher sum of recall at IoU 0.5 and mean best IoU.

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

    Raises:
        ValueError: a number or the method is none of those possible.
        ImportError: SciPy is not installed.
    """
    present = _shape_of(levels[0])
    scales = present.scales if scales is None else scales
    num_ratios = len(present.ratios) if num_ratios is None else num_ratios
    for name, number in (("scales per octave", scales), ("ratios", num_ratios)):
        if number < 1:
            raise InputError(f"the number of {name} must be at least 1, got {number}")
    if method not in METHODS:
        raise InputError(f"method is '{method}'; use one of {', '.join(METHODS)}")
    strides, offset = [x.stride for x in levels], levels[0].offset
    fewer = scales * num_ratios < max(len(x.cells) for x in levels)
    task = _Task.of(boxes, levels, scales, strides, offset, fewer, seed)
    if method == "evolution":
        start = AnchorShape(present.base, scales, _start_ratios(present, num_ratios, boxes))
        shape = _evolve(task, start, boxes, seed, generations)
    else:
        shape = _cluster(task, present.base, num_ratios, boxes)
    shape = shape.rounded()
    before, after = coverage(boxes, levels), coverage(boxes, shape.levels(strides, offset))
    if not fewer and (_loses(after, before) or _gain(after) <= _gain(before)):
        return Search(None, before, before)
    return Search(shape, before, after)


@dataclass(frozen=True, eq=False)
class _Task:
    """What a candidate is measured on, and against."""

    boxes: np.ndarray
    sizes: np.ndarray
    scales: int
    strides: list[float]
    offset: float
    floor: Coverage | None  # not to fall below; None where fewer anchors are wanted

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
    ) -> _Task:
        chosen = np.random.default_rng(seed).permutation(len(boxes.boxes))[:MAX_BOXES]
        part, sizes = boxes.boxes[chosen], boxes.sizes_of_boxes[chosen]
        floor = None if fewer else Coverage.of(best_anchor_iou(part, sizes, levels))
        return cls(part, sizes, scales, strides, offset, floor)

    def gain(self, shape: AnchorShape) -> float:
        """Sum of recall and mean best IoU; lower than any sum where one falls below the floor."""
        levels = shape.levels(self.strides, self.offset)
        found = Coverage.of(best_anchor_iou(self.boxes, self.sizes, levels))
        lost = self.floor is not None and _loses(found, self.floor)
        return _gain(found) - 2 * lost

    def shape(self, logs: np.ndarray) -> AnchorShape:
        """From log2 of the base and of the ratios."""
        base, *ratios = np.exp2(logs).tolist()
        return AnchorShape(base, self.scales, tuple(sorted(ratios)))


def _gain(found: Coverage) -> float:
    return found.recall_at_50 + found.mean_best_iou


def _loses(found: Coverage, floor: Coverage) -> bool:
    lower_iou = found.mean_best_iou < floor.mean_best_iou - 1e-9  # rounding is no loss
    return lower_iou or found.recall_at_50 < floor.recall_at_50


def _shape_of(level: AnchorLevel) -> AnchorShape:
    """Base, number of scales and ratios that a level's anchors have."""
    width, height = (np.asarray(level.cells, float)[:, 2:] - level.cells[:, :2]).T
    sizes = np.unique(np.round(np.log2(width * height) / 2, 3))
    ratios = np.unique(np.round(height / width, 3))
    return AnchorShape(float(np.sqrt((width * height).min())), len(sizes), tuple(ratios.tolist()))


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
    bounds = [(first[0] - BASE_OCTAVES, first[0] + BASE_OCTAVES)]
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
    shapes = [task.shape(np.array([x, *centres[:, 0]])) for x in bases]
    return max(shapes, key=task.gain)


def _require_scipy(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingPackageError(
            "optimising anchors needs SciPy, which is not installed: pip install scipy"
        ) from error
