"""Detector and parts; importing this registers all of them."""

from .anchors import RetinaNetAnchorGenerator
from .assigners.atss import ATSSAssigner
from .assigners.debug import AssignmentDebug, describe_assignment
from .assigners.iou import IoUAssigner
from .assigners.point import PointAssigner
from .assigners.task_aligned import TaskAlignedAssigner
from .backbones.build import build_fpn_backbone_p6p7, build_regnet_backbone
from .backbones.efficientnet_lite import (
    EfficientNetLite,
    build_efficientnet_lite_backbone,
    build_efficientnet_lite_fpn_backbone,
)
from .backbones.timm_networks import TimmBackbone, build_timm_backbone, build_timm_fpn_p6p7
from .backbones.transformers import build_swin_backbone, build_vit_simple_pyramid
from .criteria.box import L1, CIoU, DIoU, GIoU, IoU, SmoothL1, WeightedBoxLoss
from .criteria.class_balanced import ClassBalancedFocal
from .criteria.classification import BCE, BalancedBCE, FocalLoss, FocalLossStar
from .criteria.federated import FederatedFocal
from .criteria.heatmap import HeatmapFocal
from .criteria.normalizer import LossNormalizer, build_loss_normalizer
from .criteria.ohem import OHEM
from .criteria.quality import QualityFocalLoss, VarifocalLoss, box_quality
from .criteria.softmax import SoftmaxCE, SoftmaxFocalLoss
from .heads.build import RetinaNetHead, SharedTowerHead
from .heads.dense_head import DenseHead
from .postprocess.decode import DenseDecoder
from .proposals.dense_rpn import DenseRPN
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
    "DenseRPN",
    "EfficientNetLite",
    "FederatedFocal",
    "FocalLoss",
    "FocalLossStar",
    "GIoU",
    "HeatmapFocal",
    "IoU",
    "IoUAssigner",
    "LossNormalizer",
    "PointAssigner",
    "QualityFocalLoss",
    "RetinaNetAnchorGenerator",
    "RetinaNetExt",
    "RetinaNetHead",
    "SharedTowerHead",
    "SmoothL1",
    "SoftmaxCE",
    "SoftmaxFocalLoss",
    "TaskAlignedAssigner",
    "TimmBackbone",
    "VarifocalLoss",
    "WeightedBoxLoss",
    "box_quality",
    "build_efficientnet_lite_backbone",
    "build_efficientnet_lite_fpn_backbone",
    "build_fpn_backbone_p6p7",
    "build_loss_normalizer",
    "build_regnet_backbone",
    "build_swin_backbone",
    "build_timm_backbone",
    "build_timm_fpn_p6p7",
    "build_vit_simple_pyramid",
    "describe_assignment",
]
