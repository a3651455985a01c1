"""From per-level logits and deltas to detections (Sec. 4.1, "Inference").

Letters: N images, A anchors per location, K classes, Hi x Wi locations of level i, T candidates.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from detectron2.layers import batched_nms
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.structures import Boxes, Instances
from torch import Tensor

from ..losses.precision import at_least_float32

# A logit this far under the threshold cannot round to a score above it.
_LOGIT_MARGIN = 1e-3


class Candidates(NamedTuple):
    """T scored entries of one image and level, best first."""

    scores: Tensor  # (T,) in (0, 1]
    anchor_indices: Tensor  # (T,) into the level's Hi*Wi*A anchors
    classes: Tensor  # (T,) in [0, K)


def score_threshold_to_logit(score_thresh: float) -> float:
    """The logit whose sigmoid is ``score_thresh``; infinite for 0 and 1."""
    if score_thresh <= 0:
        return -math.inf
    if score_thresh >= 1:
        return math.inf
    return math.log(score_thresh / (1 - score_thresh))


def select_candidates(
    logits: Tensor, num_classes: int, score_thresh: float, topk: int
) -> Candidates:
    """The ``topk`` best scores above ``score_thresh`` of one image and level.

    Only the few logits that can pass are turned into scores, straight from the head's layout. NaN
    logits never pass.

    Args:
        logits: (A*K, Hi, Wi).
        num_classes: K.
        score_thresh: scores must be greater.
        topk: at most so many are returned.
    """
    channels, height, width = logits.shape
    num_anchors = channels // num_classes
    by_class = at_least_float32(logits).view(num_anchors, num_classes, height, width)
    limit = score_threshold_to_logit(score_thresh) - _LOGIT_MARGIN
    a, k, y, x = (by_class > limit).nonzero(as_tuple=True)
    scores = by_class[a, k, y, x].sigmoid()
    anchor_indices = (y * width + x) * num_anchors + a
    passed = scores > score_thresh
    scores, anchor_indices, classes = scores[passed], anchor_indices[passed], k[passed]
    # Candidates in Detectron2's order, so that equal scores are resolved the same way.
    order = (anchor_indices * num_classes + classes).argsort()
    scores, best = scores[order].topk(min(topk, len(order)))
    best = order[best]
    return Candidates(scores, anchor_indices[best], classes[best])


class DenseDecoder:
    """Threshold, top candidates per level, decode those alone, then NMS per class."""

    def __init__(
        self,
        *,
        box2box_transform: Box2BoxTransform,
        num_classes: int,
        score_thresh: float = 0.05,
        topk_candidates: int = 1000,
        nms_thresh: float = 0.5,
        max_detections: int = 100,
    ):
        """
        Args:
            box2box_transform: turns deltas and anchors into boxes.
            num_classes: K.
            score_thresh: scores must be greater, in [0, 1].
            topk_candidates: at most so many per level before NMS.
            nms_thresh: boxes of one class with a larger IoU are suppressed, in [0, 1].
            max_detections: at most so many per image.

        Raises:
            ValueError: names the config key of a setting that is out of range.
        """
        for key, value, low, high in (
            ("MODEL.RETINANET.SCORE_THRESH_TEST", score_thresh, 0, 1),
            ("MODEL.RETINANET.NMS_THRESH_TEST", nms_thresh, 0, 1),
            ("MODEL.RETINANET.TOPK_CANDIDATES_TEST", topk_candidates, 1, math.inf),
            ("TEST.DETECTIONS_PER_IMAGE", max_detections, 1, math.inf),
        ):
            if not low <= value <= high:
                raise ValueError(f"{key} must be in [{low}, {high}], got {value}")
        self.box2box_transform = box2box_transform
        self.num_classes = num_classes
        self.score_thresh = score_thresh
        self.topk_candidates = topk_candidates
        self.nms_thresh = nms_thresh
        self.max_detections = max_detections

    @torch.no_grad()
    def __call__(
        self,
        anchors: list[Boxes],
        logits: list[Tensor],
        deltas: list[Tensor],
        image_sizes: list[tuple[int, int]],
    ) -> list[Instances]:
        """Detections of N images, best first.

        Args:
            anchors: L Boxes (Hi*Wi*A, 4).
            logits: L tensors (N, A*K, Hi, Wi).
            deltas: L tensors (N, A*4, Hi, Wi).
            image_sizes: (height, width) of each image in pixels, without padding.

        Returns:
            N Instances with ``pred_boxes`` (absolute XYXY pixels, not clipped), ``scores`` and
            ``pred_classes``. Boxes that are not finite are left out.
        """
        return [
            self._decode_image(anchors, [x[i] for x in logits], [x[i] for x in deltas], size)
            for i, size in enumerate(image_sizes)
        ]

    def _decode_image(
        self,
        anchors: list[Boxes],
        logits: list[Tensor],
        deltas: list[Tensor],
        image_size: tuple[int, int],
    ) -> Instances:
        levels = [self._decode_level(*level) for level in zip(anchors, logits, deltas, strict=True)]
        boxes, scores, classes = (torch.cat(x) for x in zip(*levels, strict=True))
        finite = boxes.isfinite().all(dim=1)
        boxes, scores, classes = boxes[finite], scores[finite], classes[finite]
        keep = batched_nms(boxes, scores, classes, self.nms_thresh)[: self.max_detections]
        return Instances(
            image_size,
            pred_boxes=Boxes(boxes[keep]),
            scores=scores[keep],
            pred_classes=classes[keep],
        )

    def _decode_level(
        self, anchors: Boxes, logits: Tensor, deltas: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        found = select_candidates(logits, self.num_classes, self.score_thresh, self.topk_candidates)
        candidate_anchors = anchors.tensor[found.anchor_indices]
        candidate_deltas = gather_deltas(deltas, found.anchor_indices)
        boxes = self.box2box_transform.apply_deltas(candidate_deltas, candidate_anchors)
        return boxes, found.scores, found.classes


def gather_deltas(deltas: Tensor, anchor_indices: Tensor) -> Tensor:
    """Deltas (T, 4) of the anchors ``anchor_indices`` (T,) from one image's (A*4, Hi, Wi)."""
    channels, height, width = deltas.shape
    num_anchors = channels // 4
    location = torch.div(anchor_indices, num_anchors, rounding_mode="floor")
    flat = at_least_float32(deltas).reshape(num_anchors, 4, height * width)
    return flat[anchor_indices % num_anchors, :, location]
