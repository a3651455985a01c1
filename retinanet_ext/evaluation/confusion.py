"""Which class boxed objects are taken for, where the box is right."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.mask import iou as box_iou

from ..errors import count

__all__ = ["Naming", "count_names", "describe_confusion"]

MIN_IOU = 0.5  # of a box that is right, as for AP50
# Boxes are right and classes confused where boxes are found with this AP50 whatever their class,
# so much above AP50, both in percent, and this share of boxed objects has another name.
GOOD_BOXES, MUCH_BETTER, CONFUSED = 50.0, 10.0, 0.2
SHOWN_PAIRS = 3


@dataclass(frozen=True)
class Naming:
    """What the surest detection of each object says.

    Attributes:
        objects: all that are to be found; no crowds.
        boxed: those with a detection of IoU 0.5 or more, of whatever class.
        confused: (true category id, detected one) -> objects, of those boxed.
    """

    objects: int
    boxed: int
    confused: Mapping[tuple[int, int], int]

    @property
    def num_confused(self) -> int:
        """Boxed objects with another name than theirs."""
        return sum(self.confused.values())


def count_names(
    coco_gt: COCO,
    detections: Sequence[dict[str, Any]],
    image_ids: Collection[Any],
    max_dets: int,
) -> Naming:
    """Give each detection, the surest first, the object that it overlaps most and nobody has yet.

    Args:
        coco_gt: ground truth; every annotation has "iscrowd".
        detections: COCO results: "image_id", "category_id", "bbox" (absolute XYWH), "score".
        image_ids: images to count in.
        max_dets: detections of each image that count.
    """
    found: dict[Any, list[dict[str, Any]]] = defaultdict(list)
    for detection in detections:
        found[detection["image_id"]].append(detection)
    objects = boxed = 0
    confused: Counter[tuple[int, int]] = Counter()
    for image_id in image_ids:
        truth = [x for x in coco_gt.imgToAnns.get(image_id, []) if not x["iscrowd"]]
        objects += len(truth)
        surest = sorted(found.get(image_id, []), key=lambda x: -x["score"])[:max_dets]
        if not truth or not surest:
            continue
        ious = np.asarray(
            box_iou([x["bbox"] for x in surest], [x["bbox"] for x in truth], [0] * len(truth))
        )
        for row in np.flatnonzero(ious.max(axis=1) >= MIN_IOU).tolist():
            column = int(ious[row].argmax())
            if ious[row, column] < MIN_IOU:
                continue
            ious[:, column] = 0  # it is taken
            boxed += 1
            names = truth[column]["category_id"], surest[row]["category_id"]
            if names[0] != names[1]:
                confused[names] += 1
    return Naming(objects, boxed, confused)


def describe_confusion(
    naming: Naming, names: Mapping[int, str], ap50_any: float, ap50: float
) -> str:
    """One line where boxes are right and classes confused, else "".

    Args:
        naming: of the same detections.
        names: of the category ids.
        ap50_any, ap50: in percent, the first whatever the class.
    """
    good = ap50_any >= GOOD_BOXES and ap50_any - ap50 >= MUCH_BETTER
    if not good or naming.num_confused < CONFUSED * naming.boxed:
        return ""
    pairs = sorted(naming.confused.items(), key=lambda x: (-x[1], x[0]))[:SHOWN_PAIRS]
    often = ", ".join(
        f"{names[true]} taken for {names[detected]} {count(number, 'time')}"
        for (true, detected), number in pairs
    )
    right = naming.boxed - naming.num_confused
    return (
        f"boxes right, classes confused: {naming.boxed} of {count(naming.objects, 'object')} are "
        f"boxed, {right} of them named right; {often}"
    )
