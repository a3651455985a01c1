"""One list of detections out of what several tiles and views show."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from detectron2.config import CfgNode
from detectron2.structures import Boxes, Instances

from ...modeling import DenseDecoder
from .found import Found
from .fusion import fuse_boxes

__all__ = ["Merger"]


class Merger:
    """Puts detections together, by ``kind``:

    - ``nms``: all candidates go through one NMS, as those of a picture's levels do.
    - ``soft``: the same with soft-NMS.
    - ``wbf``: what NMS keeps of each tile and view is fused by :func:`fuse_boxes`. A score is the
      mean of those of its boxes times the share of views that have it.
    - ``none``: what NMS keeps of each, side by side.

    "" is the model's own way, ``nms`` or ``soft``.
    """

    def __init__(self, decoder: DenseDecoder, kind: str, thresh: float | None, num_views: int):
        """
        Args:
            decoder: of the model; its limits and the settings of its NMS are used.
            kind: see above.
            thresh: IoU of boxes of one object; None: the decoder's.
            num_views: of each tile.
        """
        self.kind = kind or ("soft" if decoder.nms_kind == "soft" else "nms")
        self.num_views = num_views
        self.decoder = copy.copy(decoder)
        self.decoder.nms_thresh = decoder.nms_thresh if thresh is None else thresh
        if self.kind == "soft":
            self.decoder.nms_kind = "soft"
        elif self.decoder.nms_kind == "soft":
            self.decoder.nms_kind = "per_class"

    @classmethod
    def from_cfg(cls, cfg: CfgNode, decoder: DenseDecoder, num_views: int) -> Merger:
        """By ``TEST.MERGE``."""
        return cls(decoder, cfg.TEST.MERGE.KIND, cfg.TEST.MERGE.THRESH, num_views)

    @property
    def class_agnostic(self) -> bool:
        """Whether boxes of different classes suppress each other."""
        return self.decoder.nms_kind == "class_agnostic"

    def __call__(self, found: Sequence[Found]) -> Instances:
        """Detections of a picture, best first, of what its tiles and views show."""
        if self.kind in ("nms", "soft"):
            return self.decoder.suppress(Instances.cat([x.candidates for x in found]))
        peaks = Instances.cat([x.candidates[x.peaks] for x in found])
        if self.kind == "wbf":
            views = torch.cat([torch.full((len(x.peaks),), x.view) for x in found])
            peaks = self._fused(peaks, views)
        best = peaks.scores.sort(descending=True, stable=True).indices
        return peaks[best[: self.decoder.max_detections]]

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
