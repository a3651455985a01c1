"""Losses for dense detectors in plain PyTorch: no config, no registry, no Detectron2."""

from .box import BOX_IOU_LOSSES, iou_box_loss, smooth_l1_box_loss
from .focal import focal_loss, sigmoid_focal_loss
from .kernels.conv_focal import conv_focal_loss
from .layout import level_views

__all__ = [
    "BOX_IOU_LOSSES",
    "conv_focal_loss",
    "focal_loss",
    "iou_box_loss",
    "level_views",
    "sigmoid_focal_loss",
    "smooth_l1_box_loss",
]
