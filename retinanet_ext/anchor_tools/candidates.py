"""Anchors to choose from: where a search of base size and ratios ends, and simpler ones."""

from __future__ import annotations

import dataclasses
import importlib
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..boxes import AnchorLevel
from ..errors import MissingPackageError
from .fit import Fit
from .shape import AnchorShape
from .training_boxes import TrainingBoxes

__all__ = ["GENERATIONS", "METHODS", "Objective", "candidates"]

METHODS = ("evolution", "kmeans")
MAX_BOXES = 3000  # that candidates are tried on; the result is measured on all of them
GENERATIONS, POPULATION = 30, 8  # of the evolution; candidates per generation and parameter
BASE_OCTAVES = 2.5  # how far the base size may go from that of the config
BASES = 41  # tried in that range where ratios are given
DEPARTURE = 0.01  # gain that an octave of change to the base or to a ratio has to bring
LOST = 10.0  # gain that one of what must not be lost would have to bring


@dataclass(frozen=True, eq=False)
class Objective:
    """What a candidate is measured on, and against."""

    boxes: np.ndarray
    sizes: np.ndarray
    scales: int
    strides: list[float]
    offset: float
    iou: float
    largest: float
    present: AnchorShape
    floor: Fit | None  # not to fall below; None where fewer anchors are wanted

    @classmethod
    def of(
        cls,
        boxes: TrainingBoxes,
        levels: Sequence[AnchorLevel],
        scales: int,
        present: AnchorShape,
        fewer: bool,
        seed: int,
        iou: float,
    ) -> Objective:
        chosen = np.random.default_rng(seed).permutation(len(boxes.boxes))[:MAX_BOXES]
        part, sizes = boxes.boxes[chosen], boxes.sizes_of_boxes[chosen]
        floor = None if fewer else Fit.of(part, sizes, levels, iou)
        strides, largest = [x.stride for x in levels], float(boxes.sizes.max())
        return cls(part, sizes, scales, strides, levels[0].offset, iou, largest, present, floor)

    def gain(self, shape: AnchorShape) -> float:
        """What is maximised; lower than any other where something falls below the floor, by how
        much, so that there is a slope to climb."""
        levels = shape.levels(self.strides, self.offset)
        found = Fit.of(self.boxes, self.sizes, levels, self.iou)
        lost = 0.0 if self.floor is None else found.lost(self.floor)
        return found.gain - DEPARTURE * self._departure(shape) - LOST * lost - (lost > 0)

    def _departure(self, shape: AnchorShape) -> float:
        """Octaves by which the base and the ratios differ from the present ones."""
        octaves = abs(np.log2(shape.base / self.present.base))
        if len(shape.ratios) == len(self.present.ratios):
            octaves += np.abs(np.log2(np.divide(shape.ratios, self.present.ratios))).sum()
        return float(octaves)

    def shape(self, logs: np.ndarray) -> AnchorShape:
        """From log2 of the base and of the ratios."""
        base, *ratios = np.exp2(logs).tolist()
        return AnchorShape(base, self.scales, tuple(sorted(ratios)), self.largest)


def candidates(
    objective: Objective,
    boxes: TrainingBoxes,
    num_ratios: int,
    method: str,
    seed: int,
    generations: int,
) -> list[AnchorShape]:
    """What to choose from, those that change the fewest numbers first, then the roundest.

    Only the base; only the ratios; both; both to more digits.
    """
    present = objective.present
    if method == "evolution":
        base = min(present.base, objective.largest)
        ratios = _start_ratios(present, num_ratios, boxes)
        start = AnchorShape(base, objective.scales, ratios, objective.largest)
        found = _evolve(objective, start, boxes, seed, generations)
    else:
        ratios = _centres(num_ratios, boxes)
        found = _best_base(objective, ratios)
    shapes = [dataclasses.replace(found, base=present.base), found]
    if num_ratios == len(present.ratios):
        shapes.insert(0, _best_base(objective, present.ratios))
    round_ones = [x.coarsely_rounded(kept=present) for x in shapes]
    return [x for x in (*round_ones, found.rounded()) if len(set(x.ratios)) == num_ratios]


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
    objective: Objective, start: AnchorShape, boxes: TrainingBoxes, seed: int, generations: int
) -> AnchorShape:
    optimize = _require_scipy("scipy.optimize")
    first = np.log2([start.base, *start.ratios])
    of_objects = np.quantile(_log_ratios(boxes), (0.01, 0.99))
    low, high = (f([*first[1:], *of_objects]) for f in (np.min, np.max))
    highest = min(first[0] + BASE_OCTAVES, np.log2(objective.largest))
    bounds = [(first[0] - BASE_OCTAVES, highest)]
    bounds += [(low - 0.5, high + 0.5)] * len(start.ratios)
    result = optimize.differential_evolution(
        lambda logs: -objective.gain(objective.shape(logs)),
        bounds,
        x0=first,
        seed=seed,
        maxiter=generations,
        popsize=POPULATION,
        polish=False,  # recall is a staircase, which has no slope to follow
    )
    return objective.shape(result.x)


def _centres(num_ratios: int, boxes: TrainingBoxes) -> tuple[float, ...]:
    """Of clusters of the objects' ratios."""
    vq = _require_scipy("scipy.cluster.vq")
    logs = _log_ratios(boxes)
    # A cluster without objects keeps its first centre: let no two of them be the same.
    first = np.quantile(logs, (np.arange(num_ratios) + 0.5) / num_ratios)
    first += 0.1 * (np.arange(num_ratios) - (num_ratios - 1) / 2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        centres, _ = vq.kmeans2(logs[:, None], first[:, None], minit="matrix")
    return tuple(sorted(np.exp2(centres[:, 0]).tolist()))


def _best_base(objective: Objective, ratios: tuple[float, ...]) -> AnchorShape:
    """With the base that fits best."""
    octaves = np.linspace(-BASE_OCTAVES, BASE_OCTAVES, BASES)
    bases = np.minimum(objective.present.base * np.exp2(octaves), objective.largest)
    scales, largest = objective.scales, objective.largest
    shapes = [AnchorShape(base, scales, ratios, largest) for base in bases.tolist()]
    return max(shapes, key=objective.gain)


def _require_scipy(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingPackageError(
            "optimising anchors needs SciPy, which is not installed: pip install scipy"
        ) from error
