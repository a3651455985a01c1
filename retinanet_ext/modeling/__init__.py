"""Detector and parts; importing this registers all of them."""

from .anchors import RetinaNetAnchorGenerator
from .assigners import IoUAssigner
from .box_criteria import L1, CIoU, DIoU, GIoU, IoU, SmoothL1, WeightedBoxLoss
from .criteria import BCE, BalancedBCE, ClassBalancedFocal, FocalLoss, FocalLossStar
from .decode import DenseDecoder
from .heads import RetinaNetHead
from .mining import OHEM
from .normalizer import LossNormalizer, build_loss_normalizer
from .retinanet import RetinaNetExt

__all__ = [
    "BCE",
    "L1",
    "OHEM",
    "BalancedBCE",
    "CIoU",
    "ClassBalancedFocal",
    "DIoU",
    "DenseDecoder",
    "FocalLoss",
    "FocalLossStar",
    "GIoU",
    "IoU",
    "IoUAssigner",
    "LossNormalizer",
    "RetinaNetAnchorGenerator",
    "RetinaNetExt",
    "RetinaNetHead",
    "SmoothL1",
    "WeightedBoxLoss",
    "build_loss_normalizer",
]
