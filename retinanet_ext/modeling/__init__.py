"""Detector and parts; importing this registers all of them."""

from .anchors import RetinaNetAnchorGenerator
from .assigners import IoUAssigner
from .box_criteria import CIoU, DIoU, GIoU, SmoothL1
from .criteria import FocalLoss
from .decode import DenseDecoder
from .heads import RetinaNetHead
from .normalizer import LossNormalizer
from .retinanet import RetinaNetExt

__all__ = [
    "CIoU",
    "DIoU",
    "DenseDecoder",
    "FocalLoss",
    "GIoU",
    "IoUAssigner",
    "LossNormalizer",
    "RetinaNetAnchorGenerator",
    "RetinaNetExt",
    "RetinaNetHead",
    "SmoothL1",
]
