"""From two files, detections and ground truth, to every number about them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pycocotools.coco import COCO

from ...errors import listed
from ..analysis.results import Analysis, analyse
from ..analysis.tables import Tables, make_tables
from ..confusion import count_names, describe_confusion
from ..scoring import score_boxes
from .annotations import class_names, read_annotations
from .fit import check_fit
from .reading import read_predictions

__all__ = ["EvaluatedFile", "evaluate_detections", "evaluate_predictions", "read_pair"]


@dataclass(frozen=True)
class EvaluatedFile:
    """What is known of a file of detections.

    Attributes:
        analysis: all numbers.
        remarks: sentences about what is odd in them.
    """

    analysis: Analysis
    remarks: Sequence[str]


def evaluate_predictions(
    predictions: str, annotations: str, iou: float = 0.5, max_dets: int = 100
) -> EvaluatedFile:
    """Evaluate COCO results without a model.

    Args:
        predictions: path of a json list of detections.
        annotations: path of the COCO json of the ground truth.
        iou: from which a detection finds an object, in the analyses; AP is COCO's.
        max_dets: detections of each image and class that count.

    Raises:
        ValueError: one of the files is wrong, or they do not belong together.
        OSError: one cannot be read.
    """
    coco_gt, detections = read_pair(predictions, annotations)
    return evaluate_detections(
        coco_gt,
        detections,
        class_names(coco_gt),
        iou,
        max_dets,
        called=(predictions, annotations),
    )


def read_pair(predictions: str, annotations: str) -> tuple[COCO, list[dict[str, Any]]]:
    """Ground truth and the detections that are checked to belong to it.

    Raises:
        ValueError, OSError: as :func:`evaluate_predictions`.
    """
    coco_gt = read_annotations(annotations)
    detections = read_predictions(predictions)
    check_fit(predictions, detections, annotations, coco_gt)
    return coco_gt, detections


def evaluate_detections(
    coco_gt: COCO,
    detections: Sequence[dict[str, Any]],
    names: Mapping[int, str],
    iou: float = 0.5,
    max_dets: int = 100,
    thresholds: Callable[[Sequence[str]], Sequence[float]] | None = None,
    called: tuple[str, str] = ("the file", "the annotations"),
) -> EvaluatedFile:
    """Every number about detections that belong to the ground truth.

    Args:
        coco_gt: ground truth, complete for COCO's evaluation.
        detections: COCO results.
        names: of the category ids.
        iou, max_dets: see :func:`evaluate_predictions`.
        thresholds: gives the score thresholds of the classes with these names; by default those of
            the best F1.
        called: what remarks call detections and ground truth.

    Raises:
        ValueError: a score is NaN, or ``iou`` or ``max_dets`` out of range.
    """
    predictions, annotations = called
    ids = sorted(names)
    tables = make_tables(coco_gt, detections, ids, [names[i] for i in ids])
    labels = _present(tables)
    present = {ids[k]: names[ids[k]] for k in labels.tolist()}
    metrics, accuracy = score_boxes(coco_gt, detections, present, max_dets)
    chosen = None if thresholds is None else thresholds(tables.names)
    analysis = analyse(tables, metrics, accuracy, iou, max_dets, labels, chosen)
    remarks = []
    if not tables.num_objects.any():
        remarks.append(f"{annotations} has no objects to find: AP and AR are set to 0")
    elif not detections:
        remarks.append(f"{predictions} has no detections: AP and AR are 0")
    lost = tables.num_objects.sum() and not analysis.assignment.counted.all()
    if lost:
        left_out = int((~analysis.assignment.counted).sum())
        remarks.append(
            f"{left_out} detections do not count, being beyond the {max_dets} surest of their "
            "image and class; --max-dets raises that"
        )
    crowded = _crowded(analysis, max_dets)
    if crowded:
        remarks.append(
            f"{len(crowded)} images, first with id {listed(crowded, 1)}, have more than {max_dets} "
            "objects of a class, which is the most that can be found; --max-dets raises that"
        )
    naming = count_names(coco_gt, detections, list(coco_gt.imgs), max_dets)
    confusion = describe_confusion(naming, names, metrics["AP50any"], metrics["AP50"])
    if confusion:
        remarks.append(confusion)
    return EvaluatedFile(analysis, remarks)


def _present(tables: Tables) -> np.ndarray:
    """Indices of the classes with objects or detections, the first one at least.

    The others have no AP and are in no mean, but thousands of them would fill the memory.
    """
    labels = np.unique(np.concatenate([tables.objects.label, tables.detections.label]))
    return labels if len(labels) else np.zeros(1, np.int64)


def _crowded(analysis: Analysis, max_dets: int) -> list[object]:
    """Ids of images with more objects of one class than detections count."""
    tables = analysis.assignment.tables
    real = ~tables.objects.crowd
    numbers: dict[tuple[int, int], int] = {}
    for pair in zip(
        tables.objects.image[real].tolist(), tables.objects.label[real].tolist(), strict=True
    ):
        numbers[pair] = numbers.get(pair, 0) + 1
    images = {image for (image, _), number in numbers.items() if number > max_dets}
    return [tables.image_ids[i] for i in sorted(images)]
