"""All analyses of one set of detections, and their numbers as JSON."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..backend import BoxAccuracy
from .assignment import Assignment, assign
from .calibration import Calibration, calibrate
from .class_confusion import BACKGROUND, MISSED, ClassConfusion, confuse_classes
from .classes import ClassRow, class_rows
from .error_split import ErrorSplit, split_errors
from .recall_by_shape import ShapeRecall, recall_by_shape
from .tables import Tables

__all__ = ["MOST_LABELS", "Analysis", "analyse", "as_json"]

MOST_LABELS = 1000
"""A confusion matrix of more classes is given only by its cells that are not 0."""


@dataclass(frozen=True)
class Analysis:
    """What can be said of detections without the model.

    Attributes:
        summary: the evaluator's metrics, in points of 100, without those of a class.
        assignment: which detection found which object.
        classes: one row per class, in the order of the category ids.
        errors: what AP loses to each kind of error.
        confusion: at the thresholds of the classes.
        calibration: of all detections.
        shapes: recall by size and aspect ratio in the image, of all detections.
    """

    summary: Mapping[str, float]
    assignment: Assignment
    classes: Sequence[ClassRow]
    errors: ErrorSplit
    confusion: ClassConfusion
    calibration: Calibration
    shapes: ShapeRecall


def analyse(
    tables: Tables,
    metrics: Mapping[str, float],
    accuracy: BoxAccuracy,
    iou: float = 0.5,
    max_dets: int = 100,
    labels: Sequence[int] | np.ndarray | None = None,
    thresholds: Sequence[float] | None = None,
) -> Analysis:
    """Do all analyses on one assignment.

    Args:
        tables: objects and detections.
        metrics: what the evaluator says of them, see ``box_metrics``.
        accuracy: what ``metrics`` were made of.
        iou: from which a detection finds an object.
        max_dets: detections of each image and class that count; one of the accuracy's limits.
        labels: indices of the classes that ``accuracy`` is of; by default all.
        thresholds: (K,), of the score; by default, those of the best F1.
    """
    assignment = assign(tables, iou, max_dets)
    classes = class_rows(assignment, accuracy, labels, thresholds)
    return Analysis(
        summary={k: v for k, v in metrics.items() if not k.startswith("AP-")},
        assignment=assignment,
        classes=classes,
        errors=split_errors(assignment),
        confusion=confuse_classes(assignment, [row.threshold for row in classes]),
        calibration=calibrate(assignment),
        shapes=recall_by_shape(assignment),
    )


def as_json(analysis: Analysis) -> dict[str, Any]:
    """Every number, for ``files.dump_json``: points of 100 for AP and errors, else fractions."""
    tables = analysis.assignment.tables
    return {
        "summary": dict(analysis.summary),
        "settings": {
            "iou": analysis.assignment.iou,
            "max_dets": analysis.assignment.max_dets,
            "images": len(tables.image_ids),
            "objects": int(tables.num_objects.sum()),
            "crowds": int(tables.objects.crowd.sum()),
            "detections": len(tables.detections.score),
        },
        "classes": {row.name: _class_numbers(row) for row in analysis.classes},
        "errors": dict(analysis.errors.gain),
        "error_counts": dict(analysis.errors.count),
        "confusion": _confusion_numbers(analysis.confusion),
        "calibration": {
            "ece": analysis.calibration.ece,
            "mce": analysis.calibration.mce,
            "bins": {
                field.name: getattr(analysis.calibration, field.name).tolist()
                for field in dataclasses.fields(analysis.calibration)
            },
        },
        "recall_by_shape": {
            field.name: value.tolist()
            for field in dataclasses.fields(analysis.shapes)
            if (value := getattr(analysis.shapes, field.name)) is not None
        },
    }


def _class_numbers(row: ClassRow) -> dict[str, float | int | bool]:
    return {
        "AP": row.AP,
        "AP50": row.AP50,
        "AP75": row.AP75,
        "AR": row.AR,
        "n": row.num_objects,
        "detections": row.num_detections,
        "threshold": row.threshold,
        "precision": row.precision,
        "recall": row.recall,
        "f1": row.f1,
        "uncertain": row.uncertain,
    }


def _confusion_numbers(confusion: ClassConfusion) -> dict[str, Any]:
    """Rows are what it is, columns what it is detected as; the last of each is no class."""
    cells = np.stack([confusion.actual, confusion.detected, confusion.count], axis=1)
    is_small = len(confusion.names) <= MOST_LABELS
    return {
        "labels": [*confusion.names, BACKGROUND],
        "columns": [*confusion.names, MISSED],
        "thresholds": confusion.thresholds.tolist(),
        "matrix": confusion.matrix().tolist() if is_small else None,
        "cells": None if is_small else cells.tolist(),
    }
