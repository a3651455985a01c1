"""A RetinaNet as it is put into the file: from pixels to the head's outputs or detections."""

from __future__ import annotations

from typing import Any

from detectron2.config import CfgNode
from torch import Tensor

from ...structures import HeadOutputs
from .decode import StaticDecoder
from .detector import HEADS, ExportableDetector

__all__ = ["HEADS", "ExportableRetinaNet"]


class ExportableRetinaNet(ExportableDetector):
    """A :class:`~retinanet_ext.modeling.RetinaNetExt`; see :class:`.detector.ExportableDetector`.

    Of the head ``raw`` the outputs are ``logits_0``, ``deltas_0`` and, where there is one,
    ``quality_0``, of each level, see :class:`~retinanet_ext.structures.HeadOutputs`.
    """

    def __init__(self, model: Any, head: str):
        """
        Args:
            model: a RetinaNetExt; left as it is.
            head: one of :data:`HEADS`.
        """
        super().__init__(model, head)
        generator = model.anchor_generator
        self.decoder = None
        if head != "raw":
            self.decoder = StaticDecoder(
                model.decoder,
                list(generator.cell_anchors),
                [int(x) for x in generator.strides],
                generator.offset,
            )
        self.has_quality = bool(getattr(model, "quality_branch", ""))

    @property
    def output_names(self) -> list[str]:
        if self.head != "raw":
            return super().output_names
        kinds = ("logits", "deltas", *(["quality"] if self.has_quality else []))
        return [f"{kind}_{i}" for i in range(len(self.in_features)) for kind in kinds]

    def sections(self, model: Any, cfg: CfgNode) -> dict[str, Any]:
        """``decode`` and ``anchors``."""
        node, generator = cfg.MODEL.RETINANET, model.anchor_generator
        levels = zip(generator.strides, generator.cell_anchors, strict=True)
        return {
            "decode": {
                "score_thresh": float(node.SCORE_THRESH_TEST),
                "topk_per_level": node.TOPK_CANDIDATES_TEST,
                "nms": node.NMS_KIND,
                "nms_thresh": float(node.NMS_THRESH_TEST),
                "soft_nms_method": node.SOFT_NMS_METHOD,
                "soft_nms_sigma": float(node.SOFT_NMS_SIGMA),
                "max_detections": cfg.TEST.DETECTIONS_PER_IMAGE,
                "box_coder": node.BOX_CODER,
                "quality": node.QUALITY_BRANCH,
                "candidates_by": node.CANDIDATES_BY,
                "delta_weights": [float(x) for x in node.BBOX_REG_WEIGHTS],
                "scale_clamp": float(getattr(model.decoder.box2box_transform, "scale_clamp", 0)),
                "boxes_per_class": not node.CLS_AGNOSTIC_BBOX_REG,
            },
            "anchors": {
                "offset": float(generator.offset),
                "levels": [{"stride": int(s), "cells": cells.tolist()} for s, cells in levels],
            },
        }

    def decode(self, returned: Any) -> tuple[Tensor, ...]:
        outputs = HeadOutputs.of(returned, type(self.dense_head).__name__)
        logits, deltas = outputs.logits, outputs.deltas
        assert logits is not None and deltas is not None
        quality = outputs.named.get("quality") if self.has_quality else None
        if self.decoder is None:
            kinds = (logits, deltas, *([] if quality is None else [quality]))
            return tuple(x for level in zip(*kinds, strict=True) for x in level)
        found = self.decoder.candidates(logits, deltas, quality)
        return found if self.head == "decoded" else self.decoder.detections(*found, self.nms)
