"""From which score on a detection counts: one number for all classes, or one for each."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..errors import InputError

__all__ = ["ScoreThresh", "describe", "reaches"]

ScoreThresh = float | Sequence[float]
"""A score in [0, 1] of all classes, or of each, (K,)."""


def reaches(
    scores: np.ndarray | Sequence[float],
    classes: np.ndarray | Sequence[int],
    thresh: ScoreThresh,
    num_classes: int | None = None,
) -> np.ndarray:
    """Which detections count, (N,) bool.

    Compared in float32, as the model gives scores: a threshold that is the score of a detection
    lets that one pass, whatever it was written to and read from.

    Args:
        scores: (N,).
        classes: (N,) int.
        thresh: the lowest score.
        num_classes: K, which thresholds of classes are checked against.

    Raises:
        InputError: a threshold is no score, or their number is not that of the classes.
    """
    of_class = np.asarray(thresh, np.float32)
    inside = (of_class >= 0) & (of_class <= 1)
    if not inside.all():
        wrong = float(of_class.flatten()[~inside.flatten()][0])
        raise InputError(f"score is {wrong:g}; it must be between 0 and 1")
    if of_class.ndim == 0:
        return np.asarray(scores, np.float32) >= of_class
    if num_classes is not None and of_class.shape != (num_classes,):
        raise InputError(f"{of_class.size} scores for {num_classes} classes; give one for each")
    return np.asarray(scores, np.float32) >= of_class[np.asarray(classes, np.int64)]


def describe(thresh: ScoreThresh) -> str:
    """``0.5``, or ``0.31 to 0.62, by class``."""
    if isinstance(thresh, int | float):
        return f"{thresh:g}"
    return f"{min(thresh):.3g} to {max(thresh):.3g}, by class"
