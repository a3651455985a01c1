"""Losses for dense detectors in plain PyTorch: no config, no registry, no Detectron2."""

from .box import BOX_IOU_LOSSES, iou_box_loss, smooth_l1_box_loss
from .conv_focal import conv_focal_loss
from .cross_entropy import anchor_cross_entropy, class_alphas, class_balanced_focal_loss
from .focal import focal_loss, sigmoid_focal_loss, softmax_focal_loss
from .heatmap import heatmap_focal_loss, sum_of_heatmap_focal_loss
from .layout import level_views
from .multi_label import conv_extra_positive_loss, extra_positive_loss
from .quality import (
    quality_focal_loss,
    sigmoid_quality_focal_loss,
    sigmoid_varifocal_loss,
    varifocal_loss,
)
from .sampling import hardest_anchors, hardest_at_ratio
from .star import focal_loss_star, sigmoid_focal_loss_star

__all__ = [
    "BOX_IOU_LOSSES",
    "anchor_cross_entropy",
    "class_alphas",
    "class_balanced_focal_loss",
    "conv_extra_positive_loss",
    "conv_focal_loss",
    "extra_positive_loss",
    "focal_loss",
    "focal_loss_star",
    "hardest_anchors",
    "hardest_at_ratio",
    "heatmap_focal_loss",
    "iou_box_loss",
    "level_views",
    "quality_focal_loss",
    "sigmoid_focal_loss",
    "sigmoid_focal_loss_star",
    "sigmoid_quality_focal_loss",
    "sigmoid_varifocal_loss",
    "smooth_l1_box_loss",
    "softmax_focal_loss",
    "sum_of_heatmap_focal_loss",
    "varifocal_loss",
]
