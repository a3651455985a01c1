"""YOLO's box coder: a centre that stays in its cell, a size in sizes of the anchor.

Letters: P pairs of an anchor and a box.
"""

from __future__ import annotations

import math

import torch
from detectron2.config import CfgNode
from torch import Tensor

from retinanet_ext.registry import BOX_CODER_REGISTRY, reads

EDGE = 1e-6  # how near to the edge of its cell a centre may be asked for
MOST = math.log(1000.0 / 16)  # of log sizes, as in Detectron2


class YOLOBoxTransform:
    """b_xy = (sigmoid(t_xy) + cell) * stride, b_wh = anchor_wh * exp(t_wh) (arXiv 1612.08242).

    The cell is the one around the anchor's centre.
    """

    num_outputs = 4
    needs_strides = True

    def get_deltas(self, src_boxes: Tensor, target_boxes: Tensor, strides: Tensor) -> Tensor:
        """Numbers t (P, 4) that stand for boxes (P, 4).

        Args:
            src_boxes, target_boxes: anchors and boxes (P, 4), absolute XYXY pixels. A centre out of
                the cell is taken to its edge.
            strides: (P,) of the anchors, px.
        """
        offset, log_size = cell_targets(src_boxes, target_boxes, strides)
        return torch.cat([offset.clamp(EDGE, 1 - EDGE).logit(), log_size], dim=1)

    def apply_deltas(self, deltas: Tensor, boxes: Tensor, strides: Tensor) -> Tensor:
        """Boxes (P, 4) of numbers t (P, 4) and anchors (P, 4); arguments as of the other."""
        centres = (boxes[:, :2] + boxes[:, 2:]) / 2
        sizes = boxes[:, 2:] - boxes[:, :2]
        deltas = deltas.to(boxes.dtype)
        centres = centres + (deltas[:, :2].sigmoid() - 0.5) * strides[:, None]
        halves = sizes * deltas[:, 2:].clamp(max=MOST).exp() / 2
        return torch.cat([centres - halves, centres + halves], dim=1)


def cell_targets(anchors: Tensor, boxes: Tensor, strides: Tensor) -> tuple[Tensor, Tensor]:
    """Where in its cell each box has its centre, in [0, 1] if it is in it, and its log size.

    Args:
        anchors, boxes: (P, 4), absolute XYXY pixels.
        strides: (P,) of the anchors, px.

    Returns:
        (P, 2) both; sizes in those of the anchor.
    """
    moved = (boxes[:, :2] + boxes[:, 2:] - anchors[:, :2] - anchors[:, 2:]) / 2
    sizes = (boxes[:, 2:] - boxes[:, :2]).clamp(min=1e-3)
    return moved / strides[:, None] + 0.5, (sizes / (anchors[:, 2:] - anchors[:, :2])).log()


@BOX_CODER_REGISTRY.register()
@reads()
def yolo(cfg: CfgNode, node: CfgNode | None = None) -> YOLOBoxTransform:
    """:class:`YOLOBoxTransform`, as MODEL.RETINANET.BOX_CODER."""
    return YOLOBoxTransform()
