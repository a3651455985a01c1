"""The curves of precision, recall and F1 that a page shows, with as few points as can be seen."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...evaluation.analysis.assignment import Assignment
from ...evaluation.analysis.curves import Curve, class_curves, pooled_curve

__all__ = ["MOST_CURVES", "score_curves"]

MOST_CURVES = 8  # of classes that can be told apart by colour
MOST_POINTS = 600
GRID = 500  # points that fall into one cell of so many by so many look alike


def score_curves(assignment: Assignment, ap50: dict[str, float]) -> dict[str, Any]:
    """Curves of all classes together, and of up to MOST_CURVES classes.

    Of more classes, those with the lowest and the highest AP50 are taken, half of each.

    Args:
        assignment: of the detections.
        ap50: of each class that has objects.
    """
    names = assignment.tables.names
    chosen = [name for name in names if name in ap50]
    if len(chosen) > MOST_CURVES:
        ordered = sorted(chosen, key=lambda name: ap50[name])
        chosen = ordered[: MOST_CURVES // 2] + ordered[-(MOST_CURVES // 2) :]
    curves = dict(zip(names, class_curves(assignment), strict=True))
    return {
        "all": _as_lists(pooled_curve(assignment)),
        "classes": {name: _as_lists(curves[name]) for name in chosen},
    }


def _as_lists(curve: Curve) -> dict[str, Any]:
    if not len(curve.score) or not curve.num_objects:
        return {"score": [], "precision": [], "recall": [], "f1": []}
    best = int(np.argmax(curve.f1))
    rows = _visible(curve, best)
    return {
        "score": curve.score[rows].tolist(),
        "precision": curve.precision[rows].tolist(),
        "recall": curve.recall[rows].tolist(),
        "f1": curve.f1[rows].tolist(),
        "best": {
            "score": float(curve.score[best]),
            "f1": float(curve.f1[best]),
            "precision": float(curve.precision[best]),
            "recall": float(curve.recall[best]),
        },
    }


def _visible(curve: Curve, best: int) -> np.ndarray:
    """Indices of the points that a drawing needs: the ends, the best one, and what moves."""
    places = np.stack([curve.recall, curve.precision, curve.f1, curve.score], axis=1) * GRID
    cells = places.round().astype(np.int64)
    moved = np.append(True, (cells[1:] != cells[:-1]).any(axis=1))
    rows = np.flatnonzero(moved)
    if len(rows) > MOST_POINTS:
        rows = rows[np.linspace(0, len(rows) - 1, MOST_POINTS).astype(np.int64)]
    return np.unique(np.append(rows, [0, best, len(curve.score) - 1]))
