"""CenterNet as a file for other programs: its peaks as plain tensors."""

from __future__ import annotations

from typing import Any

import torch
from detectron2.config import CfgNode
from torch import Tensor

from retinanet_ext.errors import InputError
from retinanet_ext.export.graph.decode import best_detections, kept_scores
from retinanet_ext.export.graph.detector import ExportableDetector
from retinanet_ext.export.graph.nms import MOST_GROUPS

from .decode import PeakDecoder, boxes_at, find_peaks

__all__ = ["ExportableCenterNet"]


class ExportableCenterNet(ExportableDetector):
    """Peaks before NMS (``decoded``), or detections (``nms``); see the base class.

    Both have TEST.DETECTIONS_PER_IMAGE rows, and where NMS_KIND is "none" they say the same.
    """

    heads = ("decoded", "nms")

    def __init__(self, model: Any, head: str):
        super().__init__(model, head)
        self.num_classes: int = model.num_classes
        self.peaks: PeakDecoder = model.decoder
        per_class = head == "nms" and self.peaks.nms_kind == "per_class"
        if per_class and self.num_classes > MOST_GROUPS:
            raise InputError(
                f"there are {self.num_classes} classes, and NMS in the file takes memory for each "
                f"of them, {MOST_GROUPS} at most; pass --head decoded"
            )

    def sections(self, model: Any, cfg: CfgNode) -> dict[str, Any]:
        """``decode``; no NMS is one that drops boxes with an IoU above 1."""
        peaks, none = self.peaks, self.peaks.nms_kind == "none"
        return {
            "decode": {
                "boxes_from": "peaks",
                "score_thresh": float(peaks.score_thresh),
                "nms": "per_class" if none else peaks.nms_kind,
                "nms_thresh": 1.0 if none else float(peaks.nms_thresh),
                "max_detections": peaks.max_detections,
            }
        }

    def decode(self, returned: Any) -> tuple[Tensor, ...]:
        logits, size, offset = (x.float() for x in returned)
        peaks = self.peaks
        values, classes, cells = find_peaks(logits, peaks.max_detections)
        boxes, scores = boxes_at(cells, size, offset, peaks.stride), values.sigmoid()
        # ONNX knows no isfinite.
        found = (scores > peaks.score_thresh) & (boxes.abs().amax(dim=2) < torch.inf)
        boxes = torch.where(found.unsqueeze(2), boxes, torch.zeros_like(boxes))
        scores = torch.where(found, scores, torch.zeros_like(scores))
        if self.head == "decoded":
            return boxes, scores, classes
        most = peaks.max_detections
        if peaks.nms_kind != "none":
            groups = self.num_classes if peaks.nms_kind == "per_class" else 1
            scores = kept_scores(boxes, scores, classes, self.nms, groups, peaks.nms_thresh, most)
        return best_detections(boxes, scores, classes, most, most)
