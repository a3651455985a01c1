"""COCO's metrics of detections, from arrays of precision and recall of the chosen engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pycocotools.coco import COCO

from .backend import BoxAccuracy, evaluate_boxes
from .metrics import box_metrics, counted_dets

__all__ = ["score_boxes"]


def score_boxes(
    coco_gt: COCO,
    detections: Sequence[dict[str, Any]],
    names: Mapping[int, str],
    max_dets: int,
    image_ids: Sequence[Any] | None = None,
    use_fast_impl: bool = True,
    iou_type: str = "bbox",
) -> tuple[dict[str, float], BoxAccuracy]:
    """The metrics of :func:`retinanet_ext.evaluation.metrics.box_metrics`, and what they rest on.

    Args:
        coco_gt, detections, image_ids, use_fast_impl, iou_type: see ``evaluate_boxes``.
        names: of the category ids of the K classes.
        max_dets: detections that count per image and class.

    Returns:
        The metrics, and the accuracy of the classes in the order of their ids.
    """
    # COCOeval orders classes by category id, whatever the order of the model's classes.
    order = sorted(names)
    accuracy = evaluate_boxes(
        coco_gt,
        detections,
        order,
        counted_dets(max_dets),
        image_ids,
        use_fast_impl,
        iou_type=iou_type,
    )
    any_class = None
    if len(order) > 1:
        any_class = evaluate_boxes(
            coco_gt,
            detections,
            order,
            [max_dets],
            image_ids,
            use_fast_impl,
            any_class=True,
            iou_type=iou_type,
        )
    return box_metrics(accuracy, [names[i] for i in order], max_dets, any_class), accuracy
