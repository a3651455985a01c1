"""Objects and detections as arrays, in the order in which COCO's evaluation looks at them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.mask import iou as box_iou

from ...errors import InputError

__all__ = ["FAINT", "Detections", "Objects", "Overlaps", "Tables", "make_tables"]

FAINT = 0.1
"""Overlaps below this IoU are not kept: a detection without a larger one is on background."""


@dataclass(frozen=True)
class Objects:
    """Ground truth, N rows ordered by image and, within one, as in the annotations.

    Attributes:
        image: (N,), index into ``Tables.image_ids``.
        label: (N,), index into ``Tables.category_ids``.
        box: (N, 4), XYWH in pixels.
        crowd: (N,), bool; a crowd is not to be found, and what matches it does not count.
        annotation: (N,), index into the annotations of the COCO object.
    """

    image: np.ndarray
    label: np.ndarray
    box: np.ndarray
    crowd: np.ndarray
    annotation: np.ndarray


@dataclass(frozen=True)
class Detections:
    """D rows ordered by image and, within one, from the highest score; ties as they were given.

    Attributes:
        image, label, box: as of :class:`Objects`.
        score: (D,), float64.
        given: (D,), index into the list of detections.
    """

    image: np.ndarray
    label: np.ndarray
    box: np.ndarray
    score: np.ndarray
    given: np.ndarray


@dataclass(frozen=True)
class Overlaps:
    """Pairs of a detection and an object of one image, of whatever classes, from an IoU of FAINT.

    Attributes:
        detection: (P,), ascending.
        object: (P,), ascending for each detection.
        iou: (P,); of a crowd, the share of the detection inside of it.
    """

    detection: np.ndarray
    object: np.ndarray
    iou: np.ndarray


@dataclass(frozen=True)
class Tables:
    """What an analysis works on.

    Attributes:
        image_ids: (I,), ascending.
        category_ids: (K,), ascending.
        names: (K,), of the classes.
        objects: of these images and classes.
        detections: likewise.
    """

    image_ids: Sequence[Any]
    category_ids: Sequence[int]
    names: Sequence[str]
    objects: Objects
    detections: Detections

    @property
    def num_classes(self) -> int:
        return len(self.category_ids)

    @cached_property
    def num_objects(self) -> np.ndarray:
        """(K,), objects of each class that are to be found."""
        found = self.objects.label[~self.objects.crowd]
        return np.bincount(found, minlength=self.num_classes)

    @cached_property
    def overlaps(self) -> Overlaps:
        """All pairs, computed once, with the IoU of pycocotools to the last bit."""
        objects, detections = self.objects, self.detections
        images = np.arange(len(self.image_ids) + 1)
        of_objects = np.searchsorted(objects.image, images).tolist()
        of_detections = np.searchsorted(detections.image, images).tolist()
        parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        for i in range(len(self.image_ids)):
            first, last = of_detections[i], of_detections[i + 1]
            start, stop = of_objects[i], of_objects[i + 1]
            if first == last or start == stop:
                continue
            crowd = objects.crowd[start:stop].astype(np.uint8).tolist()
            iou = np.asarray(box_iou(detections.box[first:last], objects.box[start:stop], crowd))
            rows, columns = np.nonzero(iou >= FAINT)
            parts.append((rows + first, columns + start, iou[rows, columns]))
        if not parts:
            return Overlaps(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))
        return Overlaps(*(np.concatenate(x) for x in zip(*parts, strict=True)))


def make_tables(
    coco_gt: COCO,
    detections: Sequence[dict[str, Any]],
    category_ids: Sequence[int],
    names: Sequence[str],
    image_ids: Sequence[Any] | None = None,
) -> Tables:
    """Put ground truth and detections into arrays.

    Args:
        coco_gt: ground truth; every annotation has "iscrowd".
        detections: COCO results: "image_id", "category_id", "bbox" (absolute XYWH), "score".
        category_ids: the dataset's ids of the K classes.
        names: (K,), in the order of ``category_ids``.
        image_ids: images to look at; all of the ground truth's by default.

    Raises:
        ValueError: a score is not a number.
    """
    name_of = dict(zip(category_ids, names, strict=True))
    images = sorted(set(coco_gt.imgs if image_ids is None else image_ids))
    classes = sorted(name_of)
    image_of = {x: i for i, x in enumerate(images)}
    class_of = {x: i for i, x in enumerate(classes)}
    annotations = coco_gt.dataset.get("annotations", [])
    image, label, box, row = _columns(annotations, image_of, class_of)
    crowd = np.array([bool(annotations[i]["iscrowd"]) for i in row.tolist()], bool)
    order = np.argsort(image, kind="stable")
    objects = Objects(image[order], label[order], box[order], crowd[order], row[order])
    image, label, box, row = _columns(detections, image_of, class_of)
    score = np.array([detections[i]["score"] for i in row.tolist()], np.float64)
    if np.isnan(score).any():
        worst = int(row[np.isnan(score)][0])
        raise InputError(
            f"the score of detection {worst} is NaN, which has no place in an order; leave such "
            "detections out"
        )
    order = np.lexsort((-score, image))  # stable
    found = Detections(image[order], label[order], box[order], score[order], row[order])
    return Tables(images, classes, [name_of[i] for i in classes], objects, found)


def _columns(
    rows: Sequence[dict[str, Any]], image_of: dict[Any, int], class_of: dict[int, int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Image, class, box and place of the rows whose image and class are wanted."""
    image = np.array([image_of.get(x["image_id"], -1) for x in rows], np.int64)
    label = np.array([class_of.get(x["category_id"], -1) for x in rows], np.int64)
    kept = np.flatnonzero((image >= 0) & (label >= 0))
    boxes = np.array([rows[i]["bbox"] for i in kept.tolist()], np.float64).reshape(-1, 4)
    return image[kept], label[kept], boxes, kept
