"""Run COCO's box evaluation with the fastest engine that gives the official numbers.

Letters: T IoU thresholds (0.50 to 0.95), R recall thresholds (101), K classes,
A areas (all, small, medium, large), M limits on detections per image and class.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import io
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pycocotools.mask as mask_codes
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

__all__ = ["BoxAccuracy", "evaluate_boxes", "fast_engine"]

logger = logging.getLogger(__name__)

# The oldest faster-coco-eval whose numbers have been compared with pycocotools'.
MIN_FAST_VERSION = (1, 6)


@dataclass(frozen=True)
class BoxAccuracy:
    """Precision and recall in [0, 1], and -1 where there is no ground truth to find.

    Attributes:
        precision: (T, R, K, A, M), interpolated precision at each recall threshold.
        recall: (T, K, A, M), the highest recall reached.
        iou_thresholds: (T,).
        max_dets: (M,), ascending; detections per image and class that were counted.
        engine: name of the library that computed the arrays.
    """

    precision: np.ndarray
    recall: np.ndarray
    iou_thresholds: np.ndarray
    max_dets: tuple[int, ...]
    engine: str


def evaluate_boxes(
    coco_gt: COCO,
    detections: Sequence[dict[str, Any]],
    category_ids: Sequence[int],
    max_dets: Iterable[int],
    image_ids: Sequence[Any] | None = None,
    use_fast_impl: bool = True,
    any_class: bool = False,
    iou_type: str = "bbox",
) -> BoxAccuracy:
    """Match detections with ground truth and accumulate precision and recall.

    Args:
        coco_gt: ground truth; every annotation has "area" and "iscrowd".
        detections: COCO results: "image_id", "category_id", "bbox" (absolute XYWH), "score".
            May be empty: precision and recall are then 0 wherever there is ground truth.
        category_ids: the dataset's ids of the K classes, ascending.
        max_dets: limits on detections per image and class.
        image_ids: images to evaluate on; all of the ground truth's by default.
        use_fast_impl: allow faster-coco-eval where it equals pycocotools.
        any_class: match detections with objects of whatever class, as if there was one; only for
            objects of all sizes, so that K and A are 1.
        iou_type: "bbox", or "segm" for the overlap of masks: detections then have "segmentation",
            COCO's run-length code, and so has the ground truth, or polygons.
    """
    image_ids = sorted(coco_gt.imgs if image_ids is None else image_ids)
    engine = fast_engine() if use_fast_impl and _exact_as_double(image_ids) else None
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints
        coco_dt = _detections_as_coco(coco_gt, detections, iou_type)
        coco_eval = (engine or COCOeval)(coco_gt, coco_dt, iou_type)
        coco_eval.params.imgIds = image_ids
        coco_eval.params.catIds = list(category_ids)
        coco_eval.params.maxDets = sorted(set(max_dets))
        if any_class:
            coco_eval.params.useCats = 0
            coco_eval.params.areaRng = coco_eval.params.areaRng[:1]
            coco_eval.params.areaRngLbl = coco_eval.params.areaRngLbl[:1]
        coco_eval.evaluate()
        coco_eval.accumulate()
    return BoxAccuracy(
        precision=np.asarray(coco_eval.eval["precision"]),
        recall=np.asarray(coco_eval.eval["recall"]),
        iou_thresholds=np.asarray(coco_eval.params.iouThrs),
        max_dets=tuple(coco_eval.params.maxDets),
        engine="pycocotools" if engine is None else "faster-coco-eval",
    )


def fast_engine() -> type | None:
    """Return faster-coco-eval's ``COCOeval_faster``, or None where it cannot be used."""
    try:
        version = importlib.metadata.version("faster-coco-eval")
        if tuple(int(part) for part in version.split(".")[:2]) < MIN_FAST_VERSION:
            logger.info("faster-coco-eval %s is too old; evaluating with pycocotools", version)
            return None
        return importlib.import_module("faster_coco_eval").COCOeval_faster
    except (ImportError, ValueError):  # not installed, does not load, or a version we cannot read
        return None


def _exact_as_double(image_ids: Iterable[Any]) -> bool:
    """faster-coco-eval keeps image ids as C doubles: no strings, nothing above 2**53."""
    return all(isinstance(i, (int, np.integer)) and abs(int(i)) < 2**53 for i in image_ids)


def _detections_as_coco(coco_gt: COCO, detections: Iterable[dict[str, Any]], iou_type: str) -> COCO:
    """Do what ``COCO.loadRes`` does, which stops at an empty list of results."""
    is_mask = iou_type == "segm"
    coco_dt = COCO()
    coco_dt.dataset = {
        "images": coco_gt.dataset["images"],
        "categories": coco_gt.dataset["categories"],
        "annotations": [
            {**det, "id": i, "area": _area(det, is_mask), "iscrowd": 0}
            for i, det in enumerate(detections, start=1)  # id 0 would mean "unmatched"
        ],
    }
    coco_dt.createIndex()
    return coco_dt


def _area(detection: dict[str, Any], is_mask: bool) -> float:
    """Of its mask, or of its box."""
    if is_mask:
        return float(mask_codes.area(detection["segmentation"]))
    return detection["bbox"][2] * detection["bbox"][3]
