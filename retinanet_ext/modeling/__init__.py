"""Detector and parts; importing this registers all of them."""

from .anchors import RetinaNetAnchorGenerator
from .assigners import IoUAssigner
from .assignment_debug import AssignmentDebug, describe_assignment
from .atss import ATSSAssigner
from .backbones import build_fpn_backbone_p6p7, build_regnet_backbone
from .box_criteria import L1, CIoU, DIoU, GIoU, IoU, SmoothL1, WeightedBoxLoss
from .criteria import BCE, BalancedBCE, ClassBalancedFocal, FocalLoss, FocalLossStar
from .decode import DenseDecoder
from .dense_head import DenseHead
from .heads import RetinaNetHead, SharedTowerHead
from .mining import OHEM
from .normalizer import LossNormalizer, build_loss_normalizer
from .quality_criteria import QualityFocalLoss, VarifocalLoss, box_quality
from .retinanet import RetinaNetExt

__all__ = [
    "BCE",
    "L1",
    "OHEM",
    "ATSSAssigner",
    "AssignmentDebug",
    "BalancedBCE",
    "CIoU",
    "ClassBalancedFocal",
    "DIoU",
    "DenseDecoder",
    "DenseHead",
    "FocalLoss",
    "FocalLossStar",
    "GIoU",
    "IoU",
    "IoUAssigner",
    "LossNormalizer",
    "QualityFocalLoss",
    "RetinaNetAnchorGenerator",
    "RetinaNetExt",
    "RetinaNetHead",
    "SharedTowerHead",
    "SmoothL1",
    "VarifocalLoss",
    "WeightedBoxLoss",
    "box_quality",
    "build_fpn_backbone_p6p7",
    "build_loss_normalizer",
    "build_regnet_backbone",
    "describe_assignment",
]
