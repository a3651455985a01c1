"""The detector: wiring of backbone, head, anchors, assigner, losses and decoder.

Letters: K classes.
"""

from __future__ import annotations

from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.modeling import (
    META_ARCH_REGISTRY,
    Backbone,
    build_anchor_generator,
    build_backbone,
)
from detectron2.modeling.meta_arch.dense_detector import DenseDetector
from detectron2.structures import ImageList, Instances
from torch import Tensor, nn

from ..errors import InputError, did_you_mean
from ..protocols import Assigner, BoxLoss, ClassificationLoss
from ..registry import ASSIGNER_REGISTRY, CLS_LOSS_REGISTRY, register_once, require_keys
from .check_config import check_retinanet
from .criteria.box import build_box_loss
from .criteria.normalizer import LossNormalizer, build_loss_normalizer
from .detectron2_arguments import complete_parts
from .detectron2_names import Detectron2Names
from .heads.build import build_dense_head
from .input_check import check_training_inputs
from .postprocess.decode import DenseDecoder
from .speedups.fused_loss import fuses_cls_loss
from .speedups.settings import Speedups
from .steps.inference import InferenceSteps
from .steps.training import TrainingSteps
from .visualize import visualize_periodically


@register_once(META_ARCH_REGISTRY)
class RetinaNetExt(InferenceSteps, TrainingSteps, Detectron2Names, DenseDetector):
    """RetinaNet whose parts come from registries; takes and gives what Detectron2's RetinaNet does.

    Parameter names, losses and detections equal Detectron2's for the same config and weights. The
    parts and what each has to do: :mod:`retinanet_ext.protocols`.
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
        assigner: Assigner | None = None,
        cls_loss: ClassificationLoss | None = None,
        box_loss: BoxLoss | None = None,
        decoder: DenseDecoder | None = None,
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
        **of_detectron2: Any,
    ):
        """
        Args:
            backbone: follows Detectron2's backbone interface.
            head: an entry of DENSE_HEAD_REGISTRY.
            head_in_features: names of the backbone's outputs that the head sees, finest first.
            anchor_generator: an entry of Detectron2's ANCHOR_GENERATOR_REGISTRY.
            assigner, cls_loss, box_loss: entries of the registries of those names.
            decoder: turns the head's outputs into detections.
            of_detectron2: arguments of Detectron2's RetinaNet, with its defaults, in the place of
                parts that are None: ``anchor_matcher`` of the assigner, ``focal_loss_alpha`` and
                the like; see :mod:`.detectron2_arguments`. So ``_target_`` of a LazyConfig for
                Detectron2's RetinaNet may be this class.
            num_classes: K.
            pixel_mean, pixel_std: per input channel.
            vis_period: draw ground truth and detections every so many iterations; 0 is never.
            input_format: channel order of the input, for drawing.
            speedups: how backbone and head are computed; default: as :class:`Speedups`.
            fuse_cls_loss: in training, never make the logits as a whole, where the head is a
                :class:`PartialHead` and the loss a :class:`FusedClassificationLoss`.
            loss_normalizer: what the losses are divided by; default: Detectron2's running mean.
            quality_branch: "", or what the head's output ``quality`` learns: "iou",
                "centerness" or "objectness".
            ignore_iof_thresh: background anchors with this fraction of their area in a box of the
                input's ``ignore_boxes`` take part in no loss; above 1 is off.
        """
        super().__init__(
            backbone, head, head_in_features, pixel_mean=pixel_mean, pixel_std=pixel_std
        )
        self.anchor_generator = anchor_generator
        given = {"assigner": assigner, "cls_loss": cls_loss, "box_loss": box_loss}
        parts = complete_parts({**given, "decoder": decoder}, of_detectron2, num_classes)
        self.assigner: Assigner = parts["assigner"]
        self.cls_loss: ClassificationLoss = parts["cls_loss"]
        self.box_loss: BoxLoss = parts["box_loss"]
        self.decoder = parts["decoder"]
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
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        require_keys(cfg, "MODEL.RETINANET.HEAD")
        node = cfg.MODEL.RETINANET
        backbone = build_backbone(cfg)
        shapes = backbone.output_shape()
        for name in node.IN_FEATURES:
            if name not in shapes:
                raise InputError(
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

    def forward(
        self, batched_inputs: list[dict[str, Any]]
    ) -> dict[str, Tensor] | list[dict[str, Instances]]:
        """Losses in training, detections otherwise; see :class:`DenseDetector` for the format.

        Raises:
            ValueError: in training, names the image file of ground truth that cannot be learned: a
                class outside of [0, K), boxes or pixels that are not finite.
        """
        self.speedups.begin_step()
        if not self.training:
            with self.speedups.precision(self.device):
                return super().forward(batched_inputs)
        self.speedups.check_training()
        check_training_inputs(batched_inputs, self.num_classes)
        visualize_periodically(self, batched_inputs, self.vis_period)
        images = self.preprocess_image(batched_inputs)
        with self.speedups.precision(self.device):
            maps = self.backbone(images.tensor)
            features = [maps[name] for name in self.head_in_features]
        return self.training_losses(features, batched_inputs)

    def _float32(self) -> torch.autocast:
        """The context of all that is computed in float32, whatever autocast is on outside."""
        return torch.autocast(self.device.type, enabled=False)

    def preprocess_image(self, batched_inputs: list[dict[str, Any]]) -> ImageList:
        """Normalized images, padded to one size, in the memory format of the network."""
        images = super().preprocess_image(batched_inputs)
        if self.speedups.channels_last != "none":
            images.tensor = images.tensor.contiguous(memory_format=torch.channels_last)
        return images
