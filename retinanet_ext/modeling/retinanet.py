"""The detector: wiring of backbone, head, anchors, assigner, losses and decoder.

Letters: N images, L levels, A anchors per location, K classes, R anchors over all levels,
P positive anchors.
"""

from __future__ import annotations

import logging
from typing import Any

import torch
from detectron2.config import configurable
from detectron2.modeling import (
    META_ARCH_REGISTRY,
    Backbone,
    build_anchor_generator,
    build_backbone,
)
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.modeling.meta_arch.dense_detector import DenseDetector
from detectron2.structures import Boxes, ImageList, Instances
from detectron2.utils.events import get_event_storage, has_event_storage
from torch import Tensor, nn

from ..messages import did_you_mean
from ..registry import (
    ASSIGNER_REGISTRY,
    CLS_LOSS_REGISTRY,
    DENSE_HEAD_REGISTRY,
    register_once,
)
from ..structures import DenseTargets
from .box_criteria import build_box_loss
from .decode import DenseDecoder, gather_deltas
from .input_check import check_training_inputs
from .normalizer import LossNormalizer, build_loss_normalizer
from .speedups import Speedups

logger = logging.getLogger(__name__)


@register_once(META_ARCH_REGISTRY)
class RetinaNetExt(DenseDetector):
    """RetinaNet whose parts come from registries; takes and gives what Detectron2's RetinaNet does.

    Parameter names, losses and detections equal Detectron2's for the same config and weights.
    """

    @configurable
    def __init__(
        self,
        *,
        backbone: Backbone,
        head: nn.Module,
        head_in_features: list[str],
        anchor_generator: nn.Module,
        assigner: Any,
        cls_loss: nn.Module,
        box_loss: nn.Module,
        decoder: DenseDecoder,
        num_classes: int,
        pixel_mean: list[float],
        pixel_std: list[float],
        vis_period: int = 0,
        input_format: str = "BGR",
        speedups: Speedups | None = None,
        fuse_cls_loss: bool = False,
        loss_normalizer: LossNormalizer | None = None,
    ):
        """
        Args:
            backbone: follows Detectron2's backbone interface.
            head: an entry of DENSE_HEAD_REGISTRY.
            head_in_features: names of the backbone's outputs that the head sees, finest first.
            anchor_generator: an entry of Detectron2's ANCHOR_GENERATOR_REGISTRY.
            assigner, cls_loss, box_loss: entries of the registries of those names.
            decoder: turns the head's outputs into detections.
            num_classes: K.
            pixel_mean, pixel_std: per input channel.
            vis_period: draw ground truth and detections every so many iterations; 0 is never.
            input_format: channel order of the input, for drawing.
            speedups: how backbone and head are computed; default: as :class:`Speedups`.
            fuse_cls_loss: in training, never make the logits as a whole; the head needs
                ``cls_features``, ``deltas`` and ``cls_score``, the loss ``from_features``.
            loss_normalizer: what both losses are divided by; default: Detectron2's running mean.
        """
        super().__init__(
            backbone, head, head_in_features, pixel_mean=pixel_mean, pixel_std=pixel_std
        )
        self.anchor_generator = anchor_generator
        self.assigner = assigner
        self.cls_loss = cls_loss
        self.box_loss = box_loss
        self.decoder = decoder
        self.loss_normalizer = loss_normalizer or LossNormalizer()
        self.num_classes = num_classes
        self.vis_period = vis_period
        self.input_format = input_format
        self.fuse_cls_loss = fuse_cls_loss
        self.speedups = speedups or Speedups()
        self.speedups.apply(self.backbone, self.head)

    @classmethod
    def from_config(cls, cfg: Any) -> dict[str, Any]:
        node = cfg.MODEL.RETINANET
        backbone = build_backbone(cfg)
        shapes = backbone.output_shape()
        for name in node.IN_FEATURES:
            if name not in shapes:
                raise ValueError(
                    f"MODEL.RETINANET.IN_FEATURES names '{name}', but the backbone "
                    f"{cfg.MODEL.BACKBONE.NAME} gives {', '.join(shapes)}."
                    f"{did_you_mean(name, shapes)}"
                )
        feature_shapes = [shapes[name] for name in node.IN_FEATURES]
        anchor_generator = build_anchor_generator(cfg, feature_shapes)
        num_anchors = set(anchor_generator.num_anchors)
        if len(num_anchors) != 1:
            raise ValueError(
                "the head is shared across levels, so each level needs the same number of anchors, "
                f"but MODEL.ANCHOR_GENERATOR gives {anchor_generator.num_anchors}"
            )
        head = DENSE_HEAD_REGISTRY.get(node.HEAD)(cfg, feature_shapes, num_anchors.pop())
        cls_loss = CLS_LOSS_REGISTRY.get(node.CLS_LOSS)(cfg)
        return {
            "backbone": backbone,
            "head": head,
            "head_in_features": node.IN_FEATURES,
            "anchor_generator": anchor_generator,
            "assigner": ASSIGNER_REGISTRY.get(node.ASSIGNER)(cfg),
            "cls_loss": cls_loss,
            "box_loss": build_box_loss(cfg),
            "decoder": DenseDecoder(
                box2box_transform=Box2BoxTransform(weights=node.BBOX_REG_WEIGHTS),
                num_classes=node.NUM_CLASSES,
                score_thresh=node.SCORE_THRESH_TEST,
                topk_candidates=node.TOPK_CANDIDATES_TEST,
                nms_thresh=node.NMS_THRESH_TEST,
                max_detections=cfg.TEST.DETECTIONS_PER_IMAGE,
                nms_kind=node.NMS_KIND,
                soft_nms_method=node.SOFT_NMS_METHOD,
                soft_nms_sigma=node.SOFT_NMS_SIGMA,
            ),
            "num_classes": node.NUM_CLASSES,
            "pixel_mean": cfg.MODEL.PIXEL_MEAN,
            "pixel_std": cfg.MODEL.PIXEL_STD,
            "vis_period": cfg.VIS_PERIOD,
            "input_format": cfg.INPUT.FORMAT,
            "loss_normalizer": build_loss_normalizer(cfg),
            "speedups": Speedups.from_cfg(cfg),
            "fuse_cls_loss": _fuses_cls_loss(node, head, cls_loss),
        }

    def forward(self, batched_inputs: list[dict[str, Any]]) -> Any:
        """Losses in training, detections otherwise; see :class:`DenseDetector` for the format.

        Raises:
            ValueError: in training, names the image file of ground truth that cannot be learned: a
                class outside of [0, K), boxes or pixels that are not finite.
        """
        if not self.training:
            with self.speedups.precision(self.device):
                return super().forward(batched_inputs)
        check_training_inputs(batched_inputs, self.num_classes)
        self._visualize_periodically(batched_inputs)
        images = self.preprocess_image(batched_inputs)
        gt_instances = [x["instances"].to(self.device) for x in batched_inputs]
        with self.speedups.precision(self.device):
            maps = self.backbone(images.tensor)
            features = [maps[name] for name in self.head_in_features]
            if self.fuse_cls_loss:
                predictions = self.head.cls_features(features), self.head.deltas(features)
            else:
                predictions = self.head(features)
        return self.forward_training(images, features, predictions, gt_instances)

    def preprocess_image(self, batched_inputs: list[dict[str, Any]]) -> ImageList:
        """Normalized images, padded to one size, in the memory format of the network."""
        images = super().preprocess_image(batched_inputs)
        if self.speedups.channels_last != "none":
            images.tensor = images.tensor.contiguous(memory_format=torch.channels_last)
        return images

    def forward_training(
        self,
        images: ImageList,
        features: list[Tensor],
        predictions: tuple[list[Tensor], list[Tensor]],
        gt_instances: list[Instances],
    ) -> dict[str, Tensor]:
        """Losses of a batch.

        Args:
            images, gt_instances: N of each.
            features: L maps (N, C, Hi, Wi).
            predictions: the head's logits and deltas; with ``fuse_cls_loss``, its ``cls_features``
                in place of logits.
        """
        classified, deltas = predictions
        anchors = self.anchor_generator(features)
        targets = self.assigner(anchors, gt_instances)
        if not self.fuse_cls_loss:
            return self.losses(anchors, classified, deltas, targets)
        fused_loss: Any = self.cls_loss  # checked for this when the model was built
        loss_cls = fused_loss.from_features(classified, self.head.cls_score, targets)
        return self._normalize(loss_cls, anchors, deltas, targets)

    def losses(
        self,
        anchors: list[Boxes],
        logits: list[Tensor],
        deltas: list[Tensor],
        targets: DenseTargets,
    ) -> dict[str, Tensor]:
        """``loss_cls`` and ``loss_box_reg``: sums over the batch divided by the loss normalizer."""
        if getattr(self.cls_loss, "needs_anchors", False):
            loss_cls = self.cls_loss(logits, targets, anchors=anchors)
        else:
            loss_cls = self.cls_loss(logits, targets)
        return self._normalize(loss_cls, anchors, deltas, targets)

    def _normalize(
        self, loss_cls: Tensor, anchors: list[Boxes], deltas: list[Tensor], targets: DenseTargets
    ) -> dict[str, Tensor]:
        # The one place where a training step has to wait for the GPU: how many positives there are.
        images, positives = targets.pos_mask.nonzero(as_tuple=True)
        if has_event_storage():
            num_pos_anchors = len(positives) / targets.num_images
            get_event_storage().put_scalar("num_pos_anchors", num_pos_anchors)
        normalizer = self.loss_normalizer(len(positives), targets.labels.numel())
        loss_box_reg = self.box_loss(
            gather_deltas(deltas, images, positives),
            Boxes.cat(anchors).tensor[positives],
            targets.boxes[images, positives],
        )
        return {"loss_cls": loss_cls / normalizer, "loss_box_reg": loss_box_reg / normalizer}

    def forward_inference(
        self,
        images: ImageList,
        features: list[Tensor],
        predictions: tuple[list[Tensor], list[Tensor]],
    ) -> list[Instances]:
        """Detections of N images in pixels of the network's input."""
        logits, deltas = predictions
        return self.decoder(self.anchor_generator(features), logits, deltas, images.image_sizes)

    def _visualize_periodically(self, batched_inputs: list[dict[str, Any]]) -> None:
        """Draw ground truth and detections of the first image, as evaluation would see it."""
        if self.vis_period <= 0 or not has_event_storage():
            return
        if get_event_storage().iter % self.vis_period != 0:
            return
        self.eval()
        try:
            with torch.no_grad():
                outputs = super().forward([{"image": batched_inputs[0]["image"]}])
        finally:
            self.train()
        self.visualize_training(batched_inputs[:1], [outputs[0]["instances"].to("cpu")])


def _fuses_cls_loss(node: Any, head: nn.Module, cls_loss: nn.Module) -> bool:
    """Whether the config asks for logits in pieces, and head and loss can do so."""
    least = node.FUSED_CLS_LOSS_MIN_CLASSES
    if not 0 <= least <= node.NUM_CLASSES or node.LOSS_KERNEL == "reference":
        return False
    able = all(hasattr(head, name) for name in ("cls_features", "deltas", "cls_score"))
    if able and hasattr(cls_loss, "from_features"):
        return True
    logger.info(
        "MODEL.RETINANET.FUSED_CLS_LOSS_MIN_CLASSES has no effect: head %s or loss %s cannot be "
        "computed in pieces",
        node.HEAD,
        node.CLS_LOSS,
    )
    return False
