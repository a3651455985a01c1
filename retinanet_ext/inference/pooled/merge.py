"""One list of detections out of what several tiles and views show."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from detectron2.config import CfgNode
from detectron2.structures import Boxes, Instances, pairwise_iou

from ...modeling import DenseDecoder
from .found import Found
from .fusion import fuse_boxes

__all__ = ["Merger"]


class Merger:
    """Puts detections together, by ``kind``:

    - ``nms``: all candidates go through one NMS, as those of a picture's levels do. Of what other
      tiles and views show nearly the same of, the coordinates are averaged.
    - ``soft``: the same with soft-NMS.
    - ``wbf``: what NMS keeps of each tile and view is fused by :func:`fuse_boxes`. A score is the
      mean of those of its boxes times the share of views that have it.
    - ``none``: what NMS keeps of each, side by side.

    "" is the model's own way, ``nms`` or ``soft``.
    """

    def __init__(
        self,
        decoder: DenseDecoder,
        kind: str,
        thresh: float | None,
        num_views: int,
        average: float = 0.0,
    ):
        """
        Args:
            decoder: of the model; its limits and the settings of its NMS are used.
            kind: see above.
            thresh: IoU of boxes of one object; None: the decoder's.
            num_views: of each tile.
            average: ``nms`` and ``soft`` average coordinates from this IoU on; 0: they do not.
        """
        self.kind = kind or ("soft" if decoder.nms_kind == "soft" else "nms")
        self.num_views, self.average = num_views, average
        self.decoder = copy.copy(decoder)
        self.decoder.nms_thresh = decoder.nms_thresh if thresh is None else thresh
        if self.kind == "soft":
            self.decoder.nms_kind = "soft"
        elif self.decoder.nms_kind == "soft":
            self.decoder.nms_kind = "per_class"

    @classmethod
    def from_cfg(cls, cfg: CfgNode, decoder: DenseDecoder, num_views: int) -> Merger:
        """By ``TEST.MERGE``."""
        node = cfg.TEST.MERGE
        return cls(decoder, node.KIND, node.THRESH, num_views, node.AVERAGE)

    @property
    def class_agnostic(self) -> bool:
        """Whether boxes of different classes suppress each other."""
        return self.decoder.nms_kind == "class_agnostic"

    def __call__(self, found: Sequence[Found]) -> Instances:
        """Detections of a picture, best first, of what its tiles and views show."""
        if self.kind in ("nms", "soft"):
            merged = self.decoder.suppress(Instances.cat([x.candidates for x in found]))
            return self._averaged(merged, found) if self.average and len(found) > 1 else merged
        peaks = Instances.cat([x.candidates[x.peaks] for x in found])
        if self.kind == "wbf":
            views = torch.cat([torch.full((len(x.peaks),), x.view) for x in found])
            peaks = self._fused(peaks, views)
        best = peaks.scores.sort(descending=True, stable=True).indices
        return peaks[best[: self.decoder.max_detections]]

    def _averaged(self, merged: Instances, found: Sequence[Found]) -> Instances:
        """With boxes that are the mean of the peaks at the same place.

        A tile or view shows each object once after its own NMS, so that no box is averaged with
        worse guesses of the view that it comes from. See :meth:`Found.weights` for the mean.
        """
        peaks = Instances.cat([x.candidates[x.peaks] for x in found])
        peaks.weights = torch.cat([x.weights() for x in found])
        boxes = merged.pred_boxes.tensor.clone()
        for k in merged.pred_classes.unique():
            own = (merged.pred_classes == k).nonzero().flatten()
            same = peaks[peaks.pred_classes == k]
            near = pairwise_iou(merged.pred_boxes[own], same.pred_boxes) >= self.average
            weights = near * same.weights
            total = weights.sum(dim=1, keepdim=True)
            mean = weights @ same.pred_boxes.tensor / total.clamp(min=1e-12)
            # One peak, the box itself, needs no rounding.
            boxes[own] = mean.where(near.sum(dim=1, keepdim=True) > 1, boxes[own])
        merged.pred_boxes = Boxes(boxes)
        return merged

    def _fused(self, peaks: Instances, views: torch.Tensor) -> Instances:
        boxes, scores, classes = fuse_boxes(
            peaks.pred_boxes.tensor.numpy(),
            peaks.scores.numpy(),
            peaks.pred_classes.numpy(),
            views.numpy(),
            [1.0] * self.num_views,
            self.decoder.nms_thresh,
        )
        kept = scores > self.decoder.score_thresh
        return Instances(
            peaks.image_size,
            pred_boxes=Boxes(torch.from_numpy(boxes[kept]).float()),
            scores=torch.from_numpy(scores[kept]).float(),
            pred_classes=torch.from_numpy(classes[kept]),
        )
