"""SSD's matching: first every object its best box, then every box a good object.

Letters: R anchors over all levels, M ground-truth boxes of an image.
"""

from __future__ import annotations

from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.structures import Boxes, pairwise_iou
from torch import Tensor

from retinanet_ext.modeling.assigners.iou import ImageAssigner, check_iou_bands
from retinanet_ext.registry import ASSIGNER_REGISTRY, node_of


@ASSIGNER_REGISTRY.register()
class BipartiteAssigner(ImageAssigner):
    """Bipartite, then by threshold (arXiv 1512.02325, Sec. 2.2, "Matching strategy").

    The best pair of an object and an anchor is taken, then the best one of those that are left,
    until every object has an anchor of its own, however small their overlap is. Then every other
    anchor whose IoU with an object is at least the threshold gets that object. None is ignored.

    torchvision's matcher gives every object its best anchor all at once: of two objects with the
    same one, the first is left with nothing. Here each keeps one, if there are as many anchors that
    it overlaps.
    """

    config_keys = ("IOU_THRESHOLDS", "IOU_LABELS", "MULTI_LABEL_IOU_THRESH")

    @configurable
    def __init__(
        self, *, num_classes: int, iou_threshold: float = 0.5, multi_label_iou_thresh: float = 1.0
    ):
        """
        Args:
            num_classes: K; background gets this label.
            iou_threshold: from which on an anchor is positive, in (0, 1).
            multi_label_iou_thresh: see :class:`ImageAssigner`.
        """
        super().__init__(num_classes, multi_label_iou_thresh)
        check_iou_bands([iou_threshold], [0, 1])
        self.iou_threshold = iou_threshold

    @classmethod
    def from_config(cls, cfg: CfgNode, node: CfgNode | None = None) -> dict[str, Any]:
        node = node_of(cfg, node)
        return {
            "num_classes": node.NUM_CLASSES,
            # Of the paper's two thresholds, the one that makes positives.
            "iou_threshold": node.IOU_THRESHOLDS[-1],
            "multi_label_iou_thresh": node.MULTI_LABEL_IOU_THRESH,
        }

    def _match(self, prepared: Tensor, gt_boxes: Tensor) -> tuple[Tensor, Tensor]:
        iou = pairwise_iou(Boxes(gt_boxes), Boxes(prepared))  # (M, R)
        best, matched = iou.max(dim=0)
        positive = best >= self.iou_threshold
        for _ in range(min(iou.shape)):
            row, column = divmod(int(iou.argmax()), iou.shape[1])
            if iou[row, column] <= 0:
                break  # what is left overlaps nothing that is free
            matched[column], positive[column] = row, True
            iou[row], iou[:, column] = -1, -1
        return matched, positive.to(torch.int8)
