"""Which candidates become detections: NMS by its kind, and the limit on their number."""

from __future__ import annotations

import torch
from detectron2.structures import Boxes, Instances
from torch import Tensor

from ...errors import InputError
from .candidates import refuse_trace
from .nms import top_batched_nms
from .soft_nms import check_soft_nms_arguments, soft_nms

NMS_KINDS = ("per_class", "class_agnostic", "soft")
"""Values of MODEL.RETINANET.NMS_KIND, see :class:`.decode.DenseDecoder`."""


def check_nms_arguments(kind: str, soft_method: str, soft_sigma: float) -> None:
    """Raise InputError, with the config key, unless the decoder knows all three."""
    if kind not in NMS_KINDS:
        raise InputError(
            f"MODEL.RETINANET.NMS_KIND is '{kind}'; set it to one of {', '.join(NMS_KINDS)}"
        )
    check_soft_nms_arguments(soft_method, soft_sigma)


class Suppression:
    """Base of the decoder: its steps from candidates to detections."""

    score_thresh: float
    nms_thresh: float
    max_detections: int
    nms_kind: str
    soft_nms_method: str
    soft_nms_sigma: float

    @torch.no_grad()
    def suppress(self, candidates: Instances) -> Instances:
        """NMS and the limit on detections: those of an image, best first.

        Args:
            candidates: of the decoder's ``candidates``, or several of them put together.
        """
        keep, scores = self.keep(candidates)
        return Instances(
            candidates.image_size,
            pred_boxes=Boxes(candidates.pred_boxes.tensor[keep]),
            scores=scores,
            pred_classes=candidates.pred_classes[keep],
        )

    @torch.no_grad()
    def keep(self, candidates: Instances) -> tuple[Tensor, Tensor]:
        """Which candidates become detections, best first, and their scores then.

        Args:
            candidates: as of :meth:`suppress`.

        Returns:
            Indices and scores, (at most max_detections,) each.
        """
        boxes, scores = candidates.pred_boxes.tensor, candidates.scores
        classes = candidates.pred_classes
        if self.nms_kind == "soft":
            refuse_trace("MODEL.RETINANET.NMS_KIND soft")
            keep, kept_scores = soft_nms(
                boxes,
                scores,
                classes,
                max_detections=self.max_detections,
                score_thresh=self.score_thresh,
                method=self.soft_nms_method,
                sigma=self.soft_nms_sigma,
                iou_thresh=self.nms_thresh,
            )
        else:
            groups = classes if self.nms_kind == "per_class" else torch.zeros_like(classes)
            keep = top_batched_nms(boxes, scores, groups, self.nms_thresh, self.max_detections)
            kept_scores = scores[keep]
        return keep, kept_scores
