"""COCO's numbers from precision and recall arrays, and the table that shows them.

The letters T, R, K, A, M of the shapes are explained in `backend.py`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from tabulate import tabulate

from .backend import BoxAccuracy

__all__ = [
    "ANY_CLASS_KEYS",
    "HEADLINE_KEYS",
    "box_metrics",
    "counted_dets",
    "metrics_table",
    "overall_table",
]

AREA_SUFFIXES = ("", "s", "m", "l")  # order of COCO's areas: all, small, medium, large
# Defined for any dataset, so that schedules and checkpoints can be steered by them.
ANY_CLASS_KEYS = ("APany", "AP50any")
HEADLINE_KEYS = ("AP", "AP50", "AP75", "AR1", "AR10", "AR100")


def counted_dets(max_dets: int) -> list[int]:
    """Numbers of detections per image and class that `box_metrics` needs, ascending."""
    return sorted({*_recall_limits(max_dets).values(), max_dets})


def box_metrics(
    accuracy: BoxAccuracy,
    class_names: Sequence[str],
    max_dets: int,
    any_class: BoxAccuracy | None = None,
) -> dict[str, float]:
    """Summarize in percent; the keys depend only on ``class_names`` and ``max_dets``.

    - ``AP`` (mean over IoU 0.50:0.95), ``AP50``, ``AP75``, ``APs``, ``APm``, ``APl``: with at
      most ``max_dets`` detections per image and class.
    - ``AR1``, ``AR10``, ``AR100``: with at most 1, 10, 100 of these; above 100, there is
      ``AR<max_dets>`` as well.
    - ``ARs``, ``ARm``, ``ARl``: with at most ``max_dets``.
    - ``APany``, ``AP50any``: AP and AP50 of the boxes, whatever class they are given, with at most
      ``max_dets`` detections per image; of one class, they are AP and AP50.
    - ``AP-<class>`` for each class.

    Sizes and classes of which there is no ground truth are NaN (as in Detectron2) and are left
    out of every mean; the headline keys are 0.0 when there is no ground truth at all.

    Args:
        accuracy: arrays for K classes, computed with ``counted_dets(max_dets)``.
        class_names: (K,), in the order of the arrays.
        max_dets: COCO's limit for AP.
        any_class: the accuracy whatever the class; not needed for one class.
    """
    limit = accuracy.max_dets.index(max_dets)
    precision = accuracy.precision[..., limit]  # (T, R, K, A)
    metrics = {"AP": _mean(precision[..., 0])}
    for percent in (50, 75):
        rows = np.isclose(accuracy.iou_thresholds, percent / 100)
        metrics[f"AP{percent}"] = _mean(precision[rows][..., 0])
    for area in (1, 2, 3):
        metrics[f"AP{AREA_SUFFIXES[area]}"] = _mean(precision[..., area])
    for name, dets in _recall_limits(max_dets).items():
        metrics[name] = _mean(accuracy.recall[:, :, 0, accuracy.max_dets.index(dets)])
    for area in (1, 2, 3):
        metrics[f"AR{AREA_SUFFIXES[area]}"] = _mean(accuracy.recall[:, :, area, limit])
    boxes = accuracy if any_class is None else any_class
    metrics |= _whatever_the_class(boxes, max_dets)
    for key in {*HEADLINE_KEYS, *ANY_CLASS_KEYS, *_recall_limits(max_dets)}:
        metrics[key] = 0.0 if math.isnan(metrics[key]) else metrics[key]
    for k, name in enumerate(class_names):
        metrics[f"AP-{name}"] = _mean(precision[:, :, k, 0])
    return metrics


def _whatever_the_class(accuracy: BoxAccuracy, max_dets: int) -> dict[str, float]:
    precision = accuracy.precision[:, :, :, 0, accuracy.max_dets.index(max_dets)]
    half = precision[np.isclose(accuracy.iou_thresholds, 0.5)]
    return dict(zip(ANY_CLASS_KEYS, (_mean(precision), _mean(half)), strict=True))


def metrics_table(
    metrics: dict[str, float], class_names: Sequence[str], num_objects: Sequence[int]
) -> str:
    """Lay out ``box_metrics`` as text: an AP row, an AR row, AP whatever the class, per class.

    Args:
        metrics: what ``box_metrics`` returned.
        class_names: (K,).
        num_objects: (K,), ground truth boxes of each class.
    """
    classes = [
        [name, count, _percent(metrics[f"AP-{name}"])]
        for name, count in zip(class_names, num_objects, strict=True)
    ]
    return f"{overall_table(metrics, len(class_names))}\n\n{_class_table(classes)}"


def overall_table(metrics: Mapping[str, float], num_classes: int) -> str:
    """The part of :func:`metrics_table` that is of all classes together."""
    keys = [key for key in metrics if not key.startswith("AP-") and key not in ANY_CLASS_KEYS]
    overall: list[list[str]] = []
    for kind in ("AP", "AR"):
        row = [key for key in keys if key.startswith(kind)]
        overall += [row, [_percent(metrics[key]) for key in row]]
    parts = [
        tabulate(overall[1:2], headers=overall[0], **_STYLE),
        tabulate(overall[3:4], headers=overall[2], **_STYLE),
        "(s, m, l: objects below 32 x 32, up to 96 x 96 and larger, in pixels of the image files)",
    ]
    if num_classes > 1:
        ap, ap50 = (_percent(metrics[key]) for key in ANY_CLASS_KEYS)
        parts.append(f"boxes whatever their class (APany, AP50any): AP {ap}, AP50 {ap50}")
    return "\n\n".join(parts)


def _recall_limits(max_dets: int) -> dict[str, int]:
    """Metric name -> detections it counts. A limit below 100 holds for every metric."""
    return {f"AR{n}": min(n, max_dets) for n in sorted({1, 10, 100, max(100, max_dets)})}


_STYLE = {"tablefmt": "simple", "disable_numparse": True, "stralign": "right"}


def _class_table(rows: list[list], rows_per_column: int = 20) -> str:
    """Set the rows (class, objects, AP) side by side when there are many of them."""
    columns = min(3, math.ceil(len(rows) / rows_per_column))
    height = math.ceil(len(rows) / max(columns, 1))
    blocks = [rows[i : i + height] for i in range(0, len(rows), max(height, 1))]
    blocks = [block + [["", "", ""]] * (height - len(block)) for block in blocks]
    wide: list[list] = [sum(parts, []) for parts in zip(*blocks, strict=True)]
    align = ("left", "right", "right") * len(blocks)
    headers = ["class", "objects", "AP"] * len(blocks)
    return tabulate(wide, headers=headers, colalign=align, **_STYLE)


def _percent(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.2f}"


def _mean(values: np.ndarray) -> float:
    """Mean in percent of the defined entries (> -1); NaN if there is none."""
    defined = values[values > -1]
    return float(defined.mean() * 100) if defined.size else float("nan")
