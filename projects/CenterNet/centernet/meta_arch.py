"""The detector: backbone, head, targets, losses and decoder.

Letters: N images, M objects of the batch, K classes, H x W cells of the map.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode, configurable
from detectron2.modeling import META_ARCH_REGISTRY, Backbone, build_backbone
from detectron2.modeling.meta_arch.dense_detector import DenseDetector
from detectron2.structures import ImageList, Instances
from detectron2.utils.events import get_event_storage, has_event_storage
from torch import Tensor, nn

from retinanet_ext.errors import InputError
from retinanet_ext.modeling import LossNormalizer
from retinanet_ext.modeling.input_check import check_training_inputs
from retinanet_ext.modeling.visualize import visualize_periodically
from retinanet_ext.protocols import ClassificationLoss
from retinanet_ext.registry import CLS_LOSS_REGISTRY, register_once
from retinanet_ext.structures import DenseTargets

from .decode import PeakDecoder
from .export import ExportableCenterNet
from .head import CenterNetHead
from .keys import RADII, SECTION, SIZE_UNITS, check_centernet
from .targets import CentrePoints, around, centre_points, draw_heat, gaussian_radius

__all__ = ["CenterNet"]

HEAD_KEYS = ("NUM_CLASSES", "HEAD_WIDTH", "HEAD_NORM", "SIZE_SCALE")

Outputs = tuple[Tensor, Tensor, Tensor]
"""Logits of the heat (N, K, H, W), sizes and offsets (N, 2, H, W) in cells."""


@register_once(META_ARCH_REGISTRY)
class CenterNet(DenseDetector):
    """Objects as points: a class, a size and an offset at the cell of each object's centre.

    Takes and gives what Detectron2's detectors do. There are no anchors and no assignment: one cell
    per object is positive, and detections are the local maxima of the heat.
    """

    config_sections = (SECTION,)
    detection_section = SECTION
    check_config = staticmethod(check_centernet)

    @configurable
    def __init__(
        self,
        *,
        backbone: Backbone,
        head: nn.Module,
        in_feature: str,
        num_classes: int,
        cls_loss: ClassificationLoss,
        decoder: PeakDecoder,
        radius: str = "correct",
        min_overlap: float = 0.7,
        box_reach: int = 0,
        size_unit: str = "cells",
        size_weight: float = 0.1,
        offset_weight: float = 1.0,
        pixel_mean: list[float],
        pixel_std: list[float],
        input_format: str = "BGR",
        vis_period: int = 0,
    ):
        """
        Args:
            backbone: of Detectron2's registry.
            head: gives :data:`Outputs` of a list of one feature.
            in_feature: the backbone's output that the head stands on.
            num_classes: K.
            cls_loss: of the heat, an entry of CLS_LOSS_REGISTRY with ``uses_heat``.
            decoder: makes detections of the outputs.
            radius, min_overlap: of the targets, see :func:`.targets.gaussian_radius`.
            box_reach: cells around an object's own that learn its size and offset too.
            size_unit: of the size's error, one of SIZE_UNITS; "object" is the object's own side.
            size_weight, offset_weight: what the L1 losses are multiplied by.
            pixel_mean, pixel_std: per channel.
            input_format: of the images, for drawings.
            vis_period: iterations between two drawings; 0 is never.
        """
        super().__init__(backbone, head, [in_feature], pixel_mean=pixel_mean, pixel_std=pixel_std)
        for name, value, choices in (
            ("radius", radius, RADII),
            ("size_unit", size_unit, SIZE_UNITS),
        ):
            if value not in choices:
                raise InputError(f"{name} is '{value}'; set it to one of {', '.join(choices)}")
        self.num_classes = num_classes
        self.cls_loss = cls_loss
        self.decoder = decoder
        self.radius, self.min_overlap = radius, min_overlap
        self.box_reach, self.size_unit = box_reach, size_unit
        self.size_weight, self.offset_weight = size_weight, offset_weight
        # Of all processes, as in the paper the objects of the whole batch.
        self.loss_normalizer = LossNormalizer(kind="positives")
        self.input_format = input_format
        self.vis_period = vis_period

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        check_centernet(cfg)
        node = cfg.MODEL.CENTERNET
        backbone = build_backbone(cfg)
        shapes = backbone.output_shape()
        if node.IN_FEATURE not in shapes:
            raise InputError(
                f"{SECTION}.IN_FEATURE is '{node.IN_FEATURE}', but {cfg.MODEL.BACKBONE.NAME} gives "
                f"{', '.join(shapes)}; set it to one of them, best of stride 4"
            )
        shape = shapes[node.IN_FEATURE]
        return {
            "backbone": backbone,
            "head": CenterNetHead(shape.channels, *(node[key] for key in HEAD_KEYS)),
            "in_feature": node.IN_FEATURE,
            "num_classes": node.NUM_CLASSES,
            "cls_loss": CLS_LOSS_REGISTRY.build(cfg, node=node),
            "decoder": PeakDecoder(
                stride=shape.stride,
                score_thresh=node.SCORE_THRESH_TEST,
                max_detections=cfg.TEST.DETECTIONS_PER_IMAGE,
                nms_kind=node.NMS_KIND,
                nms_thresh=node.NMS_THRESH_TEST,
            ),
            "radius": node.RADIUS,
            "min_overlap": node.MIN_OVERLAP,
            "box_reach": node.BOX_REACH,
            "size_unit": node.SIZE_LOSS_UNIT,
            "size_weight": node.SIZE_LOSS_WEIGHT,
            "offset_weight": node.OFFSET_LOSS_WEIGHT,
            "pixel_mean": cfg.MODEL.PIXEL_MEAN,
            "pixel_std": cfg.MODEL.PIXEL_STD,
            "input_format": cfg.INPUT.FORMAT,
            "vis_period": cfg.VIS_PERIOD,
        }

    def forward(self, batched_inputs: list[dict[str, Any]]) -> Any:
        """Losses by name in training, else detections in pixels of the pictures.

        Args:
            batched_inputs: as of Detectron2's models.

        Raises:
            InputError: ground truth that cannot be learned; names the image.
        """
        if self.training:
            check_training_inputs(batched_inputs, self.num_classes, SECTION)
            visualize_periodically(self, batched_inputs, self.vis_period)
        return super().forward(batched_inputs)

    def forward_training(
        self,
        images: ImageList,
        features: list[Tensor],
        predictions: Outputs,
        gt_instances: list[Instances],
    ) -> dict[str, Tensor]:
        """The losses; called by ``forward``."""
        return self.losses(predictions, gt_instances)

    def forward_inference(
        self, images: ImageList, features: list[Tensor], predictions: Outputs
    ) -> list[Instances]:
        """Detections in pixels of the network's input; called by ``forward``."""
        return self.decoder(*predictions, images.image_sizes)

    def export_graph(self, head: str) -> ExportableCenterNet:
        """What ``retinanet-ext export`` puts into a file."""
        return ExportableCenterNet(self, head)

    @torch.no_grad()
    def exported_detections(
        self, batched_inputs: list[dict[str, Any]], head: str
    ) -> list[Instances]:
        """What a file of this head is compared with, in pixels of the network's input."""
        images = self.preprocess_image(batched_inputs)
        maps = self.backbone(images.tensor)
        logits, size, offset = self.head([maps[name] for name in self.head_in_features])
        decoder = self.decoder if head == "nms" else replace(self.decoder, nms_kind="none")
        return decoder(logits, size, offset, images.image_sizes)

    def losses(self, outputs: Outputs, gt_instances: list[Instances]) -> dict[str, Tensor]:
        """``loss_cls``, ``loss_size`` and ``loss_offset``, sums divided by the number of objects.

        Of the cells that learn one object's box, those of size and offset are means.

        Args:
            outputs: of the head, for N images.
            gt_instances: N, with ``gt_boxes`` and ``gt_classes``.
        """
        logits, size, offset = outputs
        height, width = logits.shape[2:]
        points = centre_points(gt_instances, self.decoder.stride, (height, width))
        if has_event_storage():
            get_event_storage().put_scalar("num_objects", len(points) / len(gt_instances))
        normalizer = self.loss_normalizer(len(points), len(gt_instances) * height * width)
        cells = around(points, self.box_reach, (height, width))
        share = len(points) / max(len(cells), 1)
        # An object smaller than a cell would count without limit.
        unit = cells.size.clamp(min=1) if self.size_unit == "object" else None
        losses = {
            "loss_cls": self.cls_loss([logits], self.targets(points, logits)),
            "loss_size": self._l1(size, cells, cells.size, unit) * share * self.size_weight,
            "loss_offset": self._l1(offset, cells, cells.offset) * share * self.offset_weight,
        }
        return {name: loss / normalizer for name, loss in losses.items()}

    @torch.no_grad()
    def targets(self, points: CentrePoints, logits: Tensor) -> DenseTargets:
        """What the heat has to be, in the form that every classification loss takes.

        Args:
            points: objects of the N images.
            logits: (N, K, H, W), whose shape and device are taken.
        """
        images, classes, height, width = logits.shape
        # The authors round sizes up to whole cells, and the radius down.
        columns, rows = points.size.ceil().unbind(dim=1)
        radius = gaussian_radius(rows, columns, self.min_overlap, self.radius).clamp(min=0).floor()
        heat = draw_heat(points, (images, classes, height, width), radius)
        labels = torch.full((images, height * width), classes, device=logits.device)
        labels[points.image, points.row * width + points.column] = points.label
        return DenseTargets(
            labels,
            torch.zeros(*labels.shape, 4, device=logits.device),
            num_classes=classes,
            heat=heat.flatten(2).transpose(1, 2),
        )

    def _l1(
        self, maps: Tensor, points: CentrePoints, expected: Tensor, unit: Tensor | None = None
    ) -> Tensor:
        """Sum over M entries of |map - expected|, of maps (N, 2, H, W) and numbers (M, 2).

        Args:
            unit: (M, 2) that the differences are divided by.
        """
        found = maps[points.image, :, points.row, points.column].float()
        if unit is not None:
            found, expected = found / unit, expected / unit
        return F.l1_loss(found, expected, reduction="sum")
