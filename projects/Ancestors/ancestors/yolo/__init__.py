"""YOLO, versions 2 and 3 (arXiv 1612.08242, 1804.02767), on a ResNet with a pyramid.

The grid, the coder, the losses and the head. Objectness and the score p * q are the package's own:
MODEL.RETINANET.QUALITY_BRANCH objectness and SCORE_RULE pq; anchors by k-means on the IoU of shapes
are ``retinanet-ext anchors optimise --method kmeans-shape``.
"""

from .anchors import V2_COCO, V2_VOC, V3, as_cell_anchors, v1_outputs
from .assigner import GridAssigner
from .coder import YOLOBoxTransform
from .head import YOLOHead
from .losses import PositivesBCE, YOLOBoxLoss

__all__ = [
    "V2_COCO",
    "V2_VOC",
    "V3",
    "GridAssigner",
    "PositivesBCE",
    "YOLOBoxLoss",
    "YOLOBoxTransform",
    "YOLOHead",
    "as_cell_anchors",
    "v1_outputs",
]
