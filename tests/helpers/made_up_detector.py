"""A detector whose every step is written down by hand, for the tests of why objects are missed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from retinanet_ext.structures import DecodedPicture, DecoderSettings

__all__ = ["SETTINGS", "Anchor", "MadeUpDetector", "scene"]

SETTINGS = DecoderSettings(
    matching_iou=0.5,
    score_thresh=0.05,
    topk_candidates=1000,
    max_detections=100,
    nms_thresh=0.5,
    nms_kind="per_class",
)
BOX = (20.0, 20.0, 40.0, 40.0)


@dataclass(frozen=True)
class Anchor:
    """What becomes of one anchor for one class.

    Attributes:
        at, box: XYWH of the anchor and of the box that it becomes.
        prob: of the class; ``score`` what NMS ranks by, by default the same.
        candidate: whether the top-k leave it.
        kept: its place after NMS; -1 if that removes it.
        label: of the class.
        kept_score: after soft-NMS; by default the score.
    """

    at: Sequence[float] = BOX
    box: Sequence[float] = BOX
    prob: float = 0.9
    score: float | None = None
    candidate: bool = True
    kept: int = -1
    label: int = 0
    kept_score: float | None = None


@dataclass
class MadeUpDetector:
    """Gives what is written down for each image id; counts what it is asked for."""

    pictures: dict[Any, Sequence[Anchor]]
    settings: DecoderSettings = SETTINGS
    asked: list[tuple[Any, list[int]]] = field(default_factory=list)

    def __call__(self, image_id: Any, labels: Sequence[int]) -> DecodedPicture:
        self.asked.append((image_id, list(labels)))
        anchors = self.pictures[image_id]
        shape = (len(labels), len(anchors))
        probs, kept = np.zeros(shape), np.full(shape, -1)
        scores, is_candidate = np.zeros(shape), np.zeros(shape, bool)
        for column, one in enumerate(anchors):
            if one.label in labels:
                row = list(labels).index(one.label)
                probs[row, column], is_candidate[row, column] = one.prob, one.candidate
                scores[row, column] = one.prob if one.score is None else one.score
                kept[row, column] = one.kept
        left = sorted((one for one in anchors if one.kept >= 0), key=lambda one: one.kept)
        filled = max((one.kept for one in left), default=-1) + 1
        kept_boxes, kept_labels = np.zeros((filled, 4)), np.full(filled, -1)
        kept_scores = np.ones(filled)
        for one in left:
            score = one.prob if one.score is None else one.score
            kept_boxes[one.kept], kept_labels[one.kept] = one.box, one.label
            kept_scores[one.kept] = score if one.kept_score is None else one.kept_score
        boxes = np.array([one.box for one in anchors], np.float64).reshape(-1, 4)
        return DecodedPicture(
            anchors=np.array([one.at for one in anchors], np.float64).reshape(-1, 4),
            probs=probs,
            scores=scores,
            boxes=np.broadcast_to(boxes, (len(labels), len(anchors), 4)),
            is_candidate=is_candidate,
            kept=kept,
            kept_boxes=kept_boxes,
            kept_labels=kept_labels,
            kept_scores=kept_scores,
        )

    def with_settings(self, **changed: Any) -> MadeUpDetector:
        return MadeUpDetector(self.pictures, replace(self.settings, **changed))


def scene(
    objects: Sequence[tuple[int, Sequence[float]]], num_images: int = 1, crowd: bool = False
) -> dict[str, Any]:
    """A COCO json of two classes, "cat" and "dog", with (class index, XYWH) in the first image."""
    return {
        "images": [
            {"id": i, "width": 200, "height": 200, "file_name": f"{i}.png"}
            for i in range(1, num_images + 1)
        ],
        "annotations": [
            {
                "id": i,
                "image_id": 1,
                "category_id": label + 1,
                "bbox": list(box),
                "area": box[2] * box[3],
                "iscrowd": int(crowd),
            }
            for i, (label, box) in enumerate(objects, start=1)
        ],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
    }
