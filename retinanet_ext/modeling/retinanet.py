"""The detector: wiring of backbone, head, anchors, assigner, losses and decoder.

Letters: N images, L levels, A anchors per location, K classes, R anchors over all levels,
P positive anchors.
"""

from __future__ import annotations

from typing import Any

import torch
from detectron2.config import configurable
from detectron2.modeling import (
    META_ARCH_REGISTRY,
    Backbone,
    build_anchor_generator,
    build_backbone,
)
from detectron2.modeling.meta_arch.dense_detector import DenseDetector
from detectron2.structures import Boxes, ImageList, Instances
from detectron2.utils.events import get_event_storage, has_event_storage
from torch import Tensor, nn

from ..errors import did_you_mean
from ..registry import ASSIGNER_REGISTRY, CLS_LOSS_REGISTRY, register_once
from ..structures import DenseTargets
from .assigners.ignore_regions import ignore_anchors
from .check_config import check_retinanet
from .criteria.box import build_box_loss
from .criteria.normalizer import LossNormalizer, build_loss_normalizer
from .criteria.quality import box_quality
from .criteria.quality_branch import quality_branch_loss
from .heads.build import build_dense_head
from .input_check import check_training_inputs
from .postprocess.decode import DenseDecoder, gather_deltas, gather_quality, pick_class
from .speedups.fused_loss import fuses_cls_loss
from .speedups.settings import Speedups
from .speedups.sparse_tower import outputs_at, subnet_convs


@register_once(META_ARCH_REGISTRY)
class RetinaNetExt(DenseDetector):
    """RetinaNet whose parts come from registries; takes and gives what Detectron2's RetinaNet does.

    Parameter names, losses and detections equal Detectron2's for the same config and weights.
    """

    config_sections = ("MODEL.RETINANET", "MODEL.SPEEDUPS")
    check_config = staticmethod(check_retinanet)

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
        quality_branch: str = "",
        ignore_iof_thresh: float = 0.5,
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
            loss_normalizer: what the losses are divided by; default: Detectron2's running mean.
            quality_branch: "", or what the head's third output learns: "iou" or "centerness".
            ignore_iof_thresh: background anchors with this share of their area in a box of the
                input's ``ignore_boxes`` take part in no loss; above 1 is off.
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
        self.quality_branch = quality_branch
        self.ignore_iof_thresh = ignore_iof_thresh
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
        head = build_dense_head(cfg, feature_shapes, anchor_generator.num_anchors)
        cls_loss = CLS_LOSS_REGISTRY.build(cfg)
        return {
            "backbone": backbone,
            "head": head,
            "head_in_features": node.IN_FEATURES,
            "anchor_generator": anchor_generator,
            "assigner": ASSIGNER_REGISTRY.build(cfg),
            "cls_loss": cls_loss,
            "box_loss": build_box_loss(cfg),
            "decoder": DenseDecoder.from_cfg(cfg),
            "num_classes": node.NUM_CLASSES,
            "pixel_mean": cfg.MODEL.PIXEL_MEAN,
            "pixel_std": cfg.MODEL.PIXEL_STD,
            "vis_period": cfg.VIS_PERIOD,
            "input_format": cfg.INPUT.FORMAT,
            "loss_normalizer": build_loss_normalizer(cfg),
            "speedups": Speedups.from_cfg(cfg),
            "quality_branch": node.QUALITY_BRANCH,
            "ignore_iof_thresh": node.IGNORE_IOF_THRESH,
            "fuse_cls_loss": fuses_cls_loss(node, head, cls_loss, anchor_generator.num_anchors),
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
        with self.speedups.precision(self.device):
            maps = self.backbone(images.tensor)
            features = [maps[name] for name in self.head_in_features]
        anchors = self.anchor_generator(features)
        with self._float32():
            targets = self.label_anchors(anchors, batched_inputs)
        with self.speedups.precision(self.device):
            classified, deltas, *rest = self._predict(features, targets)
        quality_logits = rest[0] if rest else None
        with self._float32():
            return self.losses(
                anchors,
                classified,
                deltas,
                targets,
                quality_logits,
                from_features=self.fuse_cls_loss,
            )

    def _float32(self) -> torch.autocast:
        """The context of all that is computed in float32, whatever autocast is on outside."""
        return torch.autocast(self.device.type, enabled=False)

    def label_anchors(
        self, anchors: list[Boxes], batched_inputs: list[dict[str, Any]]
    ) -> DenseTargets:
        """What each anchor has to predict, by the assigner and the images' ignored regions.

        Args:
            anchors: L Boxes (Hi*Wi*A, 4).
            batched_inputs: N, with ``instances`` and, where there are some, ``ignore_boxes``.
        """
        targets = self.assigner(anchors, [x["instances"].to(self.device) for x in batched_inputs])
        ignore_boxes = [x.get("ignore_boxes") for x in batched_inputs]
        return ignore_anchors(targets, anchors, ignore_boxes, self.ignore_iof_thresh)

    def _predict(self, features: list[Tensor], targets: DenseTargets) -> tuple[Any, ...]:
        """What :meth:`losses` takes."""
        head: Any = self.head
        deltas = self._deltas_of_positives(features, targets)
        if self.fuse_cls_loss:
            if deltas is None:
                return head.features_and_deltas(features)
            return head.cls_features(features), deltas
        if deltas is None:
            return head(features)
        return head.logits(features), deltas

    def _deltas_of_positives(self, features: list[Tensor], targets: DenseTargets) -> Tensor | None:
        """The box subnet's outputs for the positives alone (P, B), where that is faster."""
        if self.quality_branch or not self.speedups.sparse_boxes(features[0]):
            return None
        convs = subnet_convs(self.head)
        if convs is None:
            return None
        images, positives = targets.pos_mask.nonzero(as_tuple=True)
        return outputs_at(convs, features, images, positives, self.head.level_anchors)

    def preprocess_image(self, batched_inputs: list[dict[str, Any]]) -> ImageList:
        """Normalized images, padded to one size, in the memory format of the network."""
        images = super().preprocess_image(batched_inputs)
        if self.speedups.channels_last != "none":
            images.tensor = images.tensor.contiguous(memory_format=torch.channels_last)
        return images

    def losses(
        self,
        anchors: list[Boxes],
        classified: list[Tensor],
        deltas: list[Tensor] | Tensor,
        targets: DenseTargets,
        quality_logits: list[Tensor] | None = None,
        from_features: bool = False,
    ) -> dict[str, Tensor]:
        """``loss_cls`` and ``loss_box_reg``: sums over the batch divided by the loss normalizer.

        A head with a quality branch adds ``loss_quality``.

        Args:
            anchors: L Boxes (Hi*Wi*A, 4).
            classified: the head's logits, L tensors (N, A*K, Hi, Wi).
            deltas: the head's, L tensors (N, A*4, Hi, Wi); or (P, 4), those of the positives in the
                order of ``targets.pos_mask``. A regressor for each class has K times as many.
            targets: of the N images.
            quality_logits: of the quality branch, L tensors (N, A, Hi, Wi).
            from_features: ``classified`` are the head's ``cls_features`` instead, (N, C, Hi, Wi),
                for a loss that makes the logits in pieces.
        """
        # With the default parts, the one place where a training step has to wait for the GPU: how
        # many positives there are.
        images, positives = targets.pos_mask.nonzero(as_tuple=True)
        if has_event_storage():
            num_pos_anchors = len(positives) / targets.num_images
            get_event_storage().put_scalar("num_pos_anchors", num_pos_anchors)
        normalizer = self.loss_normalizer(len(positives), targets.labels.numel())
        per_class = not self.decoder.cls_agnostic_bbox_reg
        classes = targets.labels[images, positives] if per_class else None
        if isinstance(deltas, Tensor):
            rows = pick_class(deltas, classes, self.num_classes)
        else:
            rows = gather_deltas(deltas, images, positives, classes, self.num_classes)
        boxes = (rows, Boxes.cat(anchors).tensor[positives], targets.boxes[images, positives])
        arguments: dict[str, Any] = {}
        if getattr(self.cls_loss, "needs_anchors", False):
            arguments["anchors"] = anchors
        if getattr(self.cls_loss, "needs_quality", False):
            quality = torch.zeros_like(targets.boxes[..., 0])
            quality[images, positives] = box_quality(*boxes, self.decoder.box2box_transform)
            arguments["quality"] = quality
        if from_features:
            fused_loss: Any = self.cls_loss  # checked for this when the model was built
            loss_cls = fused_loss.from_features(classified, self.head.cls_score, targets)
        else:
            loss_cls = self.cls_loss(classified, targets, **arguments)
        losses = {"loss_cls": loss_cls, "loss_box_reg": self.box_loss(*boxes)}
        if quality_logits is not None:
            losses["loss_quality"] = quality_branch_loss(
                self.quality_branch,
                gather_quality(quality_logits, images, positives),
                *boxes,
                self.decoder.box2box_transform,
            )
        return {name: loss / normalizer for name, loss in losses.items()}

    def forward_inference(
        self,
        images: ImageList,
        features: list[Tensor],
        predictions: tuple[list[Tensor], ...],
    ) -> list[Instances]:
        """Detections of N images in pixels of the network's input."""
        logits, deltas, *rest = predictions
        anchors = self.anchor_generator(features)
        with self._float32():
            return self.decoder(anchors, logits, deltas, images.image_sizes, *rest)

    def _visualize_periodically(self, batched_inputs: list[dict[str, Any]]) -> None:
        """Draw ground truth and detections of the first image, as evaluation would see it."""
        if self.vis_period <= 0 or not has_event_storage():
            return
        if get_event_storage().iter % self.vis_period != 0:
            return
        in_training = [module for module in self.modules() if module.training]
        self.eval()
        try:
            with torch.no_grad():
                outputs = super().forward([{"image": batched_inputs[0]["image"]}])
        finally:
            for module in in_training:  # a part that its user keeps in evaluation mode stays there
                module.training = True
        self.visualize_training(batched_inputs[:1], [outputs[0]["instances"].to("cpu")])
