"""Viola and Jones (2001): a cascade of boosted stumps on sums of rectangles, in NumPy.

Letters: C channels, F features, N windows. Windows are 24x24 pixels of a picture that is made
smaller step by step. As in the paper a feature costs a few look-ups in an integral image, each
stage throws away windows that are surely background, and its negatives are the background windows
that passed all stages before it. Not as there: the rectangles are of seven channels (grey, colour,
gradients: Dollár et al., 2009), each stage continues the sum of the stages before it, the features
that a stage may choose from are drawn at random, and one cascade finds objects of any class.
Which class a found window has is said by boosted stumps of each class against the others.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .samples import object_windows
from .scanning import CORE, Found, Picture, background, largest_scale, merge, pyramid, resize

WINDOW, STRIDE, FACTOR, CHANNELS = 24, 2, 1.25, 7
SIDE = WINDOW + 1  # of a window's integral image
KEPT = 0.99  # of the objects, by each stage
ROUNDS = (4, 8, 16, 32, 48, 64, 96, 128)  # stumps of each stage; the last number again and again
DRAWN, POSITIVES, NEGATIVES, ENOUGH, CLASS_ROUNDS = 600, 3000, 3000, 300, 50
# Cells of a feature, as weights: bars, lines, the chequerboard of the paper, and a plain sum.
CELLS = ([[1, -1]], [[1], [-1]], [[1, -2, 1]], [[1], [-2], [1]], [[1, -1], [-1, 1]], [[1]])
SHAPES = [np.array(cells, float) for cells in CELLS]


def num_features(rows: int, cols: int, window: int = WINDOW) -> int:
    """Places and sizes in a window of a feature of ``rows`` x ``cols`` equal cells."""
    high, wide = ([window - n * k + 1 for k in range(1, window // n + 1)] for n in (rows, cols))
    return sum(high) * sum(wide)


def channels(rgb: np.ndarray) -> np.ndarray:
    """(C, H, W) in 0..1 of a picture (H, W, 3) uint8: grey, colour, gradient by direction."""
    x = rgb.astype(np.float32) / 255
    grey, colour = x.mean(2), x.max(2) - x.min(2)
    dy, dx = np.gradient(grey)
    size = np.hypot(dy, dx)
    angle = (np.arctan2(dy, dx) / np.pi * 4).round().astype(int) % 4
    return np.stack([grey, colour, size, *(np.where(angle == k, size, 0) for k in range(4))])


def integral(maps: np.ndarray) -> np.ndarray:
    """(..., H + 1, W + 1): entry (y, x) is the sum of what is above y and left of x."""
    padded = np.zeros((*maps.shape[:-2], maps.shape[-2] + 1, maps.shape[-1] + 1))
    padded[..., 1:, 1:] = maps.cumsum(-1, dtype=float).cumsum(-2)
    return padded


@dataclass
class Features:
    """F sums of rectangles: a channel (F,), and nine corners (F, 9) with weights (F, 9)."""

    channel: np.ndarray
    y: np.ndarray
    x: np.ndarray
    weight: np.ndarray

    def __getitem__(self, rows: np.ndarray) -> Features:
        return Features(self.channel[rows], self.y[rows], self.x[rows], self.weight[rows])

    def __call__(self, sums: np.ndarray, origin: np.ndarray) -> np.ndarray:
        """Values (N, F) float32.

        Args:
            sums: integral images (..., C, h, w).
            origin: (N, 3): which of the images, and y, x of the window's corner in it.
        """
        count, height, width = sums.shape[-3:]
        first = ((origin[:, 0] * count * height + origin[:, 1]) * width + origin[:, 2])[:, None]
        at = (self.channel[:, None] * height + self.y) * width + self.x
        flat, out = sums.reshape(-1), np.zeros((len(origin), len(at)), np.float32)
        for corner in range(9):
            out += self.weight[:, corner] * flat[first + at[:, corner]]
        return out


def draw_features(rng: np.random.Generator, count: int) -> Features:
    """Random features; the values are means, not sums, so that sizes compare."""
    (y, x), weights = np.zeros((2, count, 9), int), np.zeros((count, 9))
    found = Features(rng.integers(CHANNELS, size=count), y, x, weights)
    for i, kind in enumerate(rng.integers(len(SHAPES), size=count)):
        cells = SHAPES[kind]
        rows, cols = cells.shape
        h, w = rng.integers(1, WINDOW // rows + 1), rng.integers(1, WINDOW // cols + 1)
        top, left = rng.integers(WINDOW - h * rows + 1), rng.integers(WINDOW - w * cols + 1)
        corners = np.diff(np.diff(np.pad(cells, 1), axis=0), axis=1)  # what each corner counts
        grid = np.mgrid[: rows + 1, : cols + 1].reshape(2, -1) * [[h], [w]] + [[top], [left]]
        y[i, : corners.size], x[i, : corners.size] = grid
        weights[i, : corners.size] = corners.ravel() / (h * w)
    return found


@dataclass
class Stumps:
    """A strong classifier: sum of +-weight by which side of a threshold each feature is."""

    features: Features
    threshold: np.ndarray
    weight: np.ndarray

    def __call__(self, sums: np.ndarray, origin: np.ndarray) -> np.ndarray:
        above = self.features(sums, origin) > self.threshold
        return (np.where(above, 1, -1) * self.weight).sum(1)


def boost(
    values: np.ndarray, order: np.ndarray, truth: np.ndarray, margin: np.ndarray, rounds: int
) -> tuple[np.ndarray, ...]:
    """AdaBoost of stumps, continued from ``margin`` (N,), which is changed in place.

    ``values`` and ``order`` are of the features (N, F), and the windows sorted by each; ``truth``
    (N,) is 1 or -1. Returns columns of ``values``, thresholds and signed weights, (rounds,).
    """
    ranked = np.take_along_axis(values, order, 0)
    between = np.diff(ranked, axis=0, append=np.inf) > 0  # a threshold fits between unlike values
    chosen = []
    for _ in range(rounds):
        weight = np.exp(-truth * margin)
        for side in (1, -1):  # objects and background weigh the same
            weight[truth == side] /= 2 * weight[truth == side].sum()
        # By how much "above the threshold is an object" errs less, or more, than a coin.
        gain = np.cumsum((truth * weight).astype(np.float32)[order], axis=0) * between
        row, column = np.unravel_index(np.abs(gain).argmax(), gain.shape)
        wrong = np.clip(0.5 + gain[row, column], 1e-4, 1 - 1e-4)
        threshold = ranked[row : row + 2, column].mean()
        chosen.append((column, threshold, 0.5 * np.log((1 - wrong) / wrong)))
        margin += np.where(values[:, column] > threshold, 1, -1) * chosen[-1][2]
    return tuple(np.array(x) for x in zip(*chosen, strict=True))


Save = Callable[[], None]
Left = Callable[[float], bool]


@dataclass
class ViolaJones:
    """The detector."""

    # Classifiers, and the least sum that passes each; a classifier for each class.
    stages: list[tuple[Stumps, float]] = field(default_factory=list)
    classes: list[Stumps] = field(default_factory=list)
    largest: float = 1.0  # scale that pictures are first looked at
    # At first and after each stage, of all pictures that were looked at.
    windows: np.ndarray = field(default_factory=lambda: np.zeros(0, int))

    def scan(self, rgb: np.ndarray, stride: int = STRIDE) -> Iterator[tuple[Any, ...]]:
        """Of each size of the picture: channels, integral image, windows (N, 3) and margins."""
        if len(self.windows) != len(self.stages) + 1:
            self.windows = np.zeros(len(self.stages) + 1, int)
        for scale, size in pyramid(rgb.shape, WINDOW, FACTOR, self.largest):
            maps = channels(resize(rgb, size))
            sums = integral(maps)
            y, x = np.mgrid[0 : size[0] - WINDOW + 1 : stride, 0 : size[1] - WINDOW + 1 : stride]
            left = np.stack([np.zeros(y.size, int), y.ravel(), x.ravel()], 1)
            margin = np.zeros(len(left))
            self.windows[0] += len(left)
            for i, (stumps, least) in enumerate(self.stages):
                margin += stumps(sums, left)
                left, margin = left[margin >= least], margin[margin >= least]
                self.windows[i + 1] += len(left)
            yield maps, sums, left, margin, scale

    def detect(self, rgb: np.ndarray) -> Found:
        """Objects in a picture (H, W, 3) uint8."""
        boxes, scores, labels = [np.zeros((0, 4))], [np.zeros(0)], [np.zeros(0, int)]
        for _, sums, left, margin, scale in self.scan(rgb):
            votes = np.stack([stumps(sums, left) for stumps in self.classes], 1)
            boxes.append(boxes_of(left, scale))
            scores.append(1 / (1 + np.exp(-margin)))
            labels.append(votes.argmax(1))
        return merge(Found(*(np.concatenate(x) for x in (boxes, scores, labels))))

    def train(self, pictures: Sequence[Picture], seed: int, save: Save, time_left: Left) -> None:
        """Add stages until the time is over or background windows that pass are too few.

        Args:
            pictures, seed: what is learned from, and drawn with.
            save: called after each stage; what was saved is continued by the next call.
            time_left: whether there is time for another stage, given the seconds of the last one.
        """
        cut, labels = object_windows(pictures, WINDOW, POSITIVES, np.random.default_rng(seed))
        objects = integral(np.stack([channels(x) for x in cut]))
        if not self.classes:
            self.largest = largest_scale(pictures, WINDOW)
            drawn = draw_features(np.random.default_rng(seed), DRAWN)
            values = drawn(objects, _origins(objects))
            order = values.argsort(0)
            for label in range(labels.max() + 1):
                truth, margin = np.where(labels == label, 1, -1), np.zeros(len(labels))
                columns, *rest = boost(values, order, truth, margin, CLASS_ROUNDS)
                self.classes.append(Stumps(drawn[columns], *rest))
            save()
        took = 0.0
        while time_left(took):
            started, number = time.monotonic(), len(self.stages)
            rng = np.random.default_rng([seed, number])  # the same after an interruption
            patches = np.concatenate([objects, self._passing_background(pictures, rng)])
            if len(patches) - len(objects) < ENOUGH:
                return
            truth = np.where(np.arange(len(patches)) < len(objects), 1, -1)
            # Each fourth object sets the threshold: boosting knows the others too well.
            used = (truth < 0) | (np.arange(len(patches)) % 4 > 0)
            origin, margin = _origins(patches), np.zeros(len(patches))
            for stumps, _ in self.stages:
                margin += stumps(patches, origin)
            drawn = draw_features(rng, DRAWN)
            values = drawn(patches[used], origin[: used.sum()])
            rounds = ROUNDS[min(number, len(ROUNDS) - 1)]
            columns, *rest = boost(values, values.argsort(0), truth[used], margin[used], rounds)
            stage = Stumps(drawn[columns], *rest)
            margin += stage(patches, origin)
            least = np.quantile(margin[~used], 1 - KEPT ** (number + 1))
            self.stages.append((stage, float(least)))
            save()
            took = time.monotonic() - started

    def _passing_background(self, pictures: Sequence[Picture], rng: Any) -> np.ndarray:
        """Integral images of background windows that all stages let pass, NEGATIVES at most."""
        found: list[np.ndarray] = []
        for i in rng.permutation(len(pictures)):
            for maps, _, left, _, scale in self.scan(pictures[i].rgb(), 2 * STRIDE):
                left = left[background(boxes_of(left, scale), pictures[i])]
                left = rng.permutation(left)[: max(4, NEGATIVES // 500)]
                found += [maps[:, y : y + WINDOW, x : x + WINDOW] for _, y, x in left]
            if len(found) >= NEGATIVES:
                break
        return integral(np.stack(found)) if found else np.zeros((0, CHANNELS, SIDE, SIDE))


def _origins(patches: np.ndarray) -> np.ndarray:
    """(N, 3): each patch (N, C, 25, 25) is a window of its own."""
    return np.stack([np.arange(len(patches)), *np.zeros((2, len(patches)), int)], 1)


def boxes_of(windows: np.ndarray, scale: float) -> np.ndarray:
    """XYXY pixels of the picture (N, 4): the core of each window (N, 3), where an object is."""
    centre = windows[:, [2, 1]] + WINDOW / 2
    return np.concatenate([centre - WINDOW * CORE / 2, centre + WINDOW * CORE / 2], 1) / scale
