"""A RetinaNet of one class, "object", as the proposal generator of a two-stage detector.

Letters: N images, L levels, Hi x Wi locations of level i, A anchors per location, R anchors over
all levels, T candidates of a level.
"""

from __future__ import annotations

from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling import PROPOSAL_GENERATOR_REGISTRY, build_anchor_generator
from detectron2.modeling.proposal_generator.proposal_utils import find_top_rpn_proposals
from detectron2.structures import Boxes, ImageList, Instances
from torch import Tensor, nn

from ...losses.precision import at_least_float32
from ...protocols import Assigner, BoxCoder, BoxLoss, ClassificationLoss
from ...registry import (
    ASSIGNER_REGISTRY,
    BOX_CODER_REGISTRY,
    CLS_LOSS_REGISTRY,
    register_once,
    require_keys,
)
from ...structures import HeadOutputs
from ..coders import decode_boxes, num_box_outputs, strides_of_anchors
from ..criteria.box import build_box_loss
from ..criteria.normalizer import LossNormalizer, build_loss_normalizer
from ..criteria.quality_branch import check_named_quality
from ..heads.build import build_dense_head
from ..loss_terms import Positives, box_term, classification_term, named_terms, quality_term
from ..postprocess.candidates import joint_logits
from ..postprocess.gather import gather_from_whole
from ..predictions import HeadPredictions, needs_predictions
from .dense_rpn_keys import check_keys, node_of_one_class


@register_once(PROPOSAL_GENERATOR_REGISTRY)
class DenseRPN(nn.Module):
    """Proposals by the parts of this package: head, anchors, assigner, losses, normalizer.

    ``MODEL.RETINANET`` chooses the parts, of one class; ``MODEL.RPN`` says, as for Detectron2's
    RPN, which levels there are (IN_FEATURES), how many proposals are kept (PRE_ and POST_NMS_TOPK,
    NMS_THRESH) and what the losses weigh (LOSS_WEIGHT, BBOX_REG_LOSS_WEIGHT). All anchors take part
    in the loss, none are sampled: that is what the focal loss is for. With a quality branch,
    proposals are ranked by sqrt(objectness * quality).
    """

    config_sections = ("MODEL.RETINANET",)

    @configurable
    def __init__(
        self,
        *,
        in_features: list[str],
        head: nn.Module,
        anchor_generator: nn.Module,
        assigner: Assigner,
        cls_loss: ClassificationLoss,
        box_loss: BoxLoss,
        box_coder: BoxCoder,
        loss_normalizer: LossNormalizer | None = None,
        quality_branch: str = "",
        score_rule: str = "sqrt_pq",
        pre_nms_topk: tuple[int, int] = (2000, 1000),
        post_nms_topk: tuple[int, int] = (1000, 1000),
        nms_thresh: float = 0.7,
        min_box_size: float = 0.0,
        cls_weight: float = 1.0,
        box_weight: float = 1.0,
    ):
        """
        Args:
            in_features: names of the backbone's outputs, finest first.
            head, anchor_generator, assigner, cls_loss, box_loss, box_coder, loss_normalizer: of
                one class; as of :class:`retinanet_ext.modeling.RetinaNetExt`.
            quality_branch: "", "iou", "centerness" or "objectness".
            score_rule: of that quality, see :class:`DenseDecoder`.
            pre_nms_topk, post_nms_topk: in training and in inference; per level, and in all.
            nms_thresh: boxes of a level with a larger IoU are suppressed.
            min_box_size: smaller proposals are dropped, in pixels of the network's input.
            cls_weight, box_weight: what the losses are multiplied by.
        """
        super().__init__()
        self.in_features = list(in_features)
        self.head = head
        self.anchor_generator = anchor_generator
        self.assigner = assigner
        self.cls_loss = cls_loss
        self.box_loss = box_loss
        self.box_coder = box_coder
        self.loss_normalizer = loss_normalizer or LossNormalizer()
        self.quality_branch = quality_branch
        self.score_rule = score_rule
        self.pre_nms_topk = {True: pre_nms_topk[0], False: pre_nms_topk[1]}
        self.post_nms_topk = {True: post_nms_topk[0], False: post_nms_topk[1]}
        self.nms_thresh = nms_thresh
        self.min_box_size = float(min_box_size)
        self.cls_weight = cls_weight
        self.box_weight = box_weight

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        require_keys(cfg, "MODEL.RETINANET.HEAD")
        cls.check_config(cfg)
        rpn, node = cfg.MODEL.RPN, node_of_one_class(cfg)
        shapes = [input_shape[name] for name in rpn.IN_FEATURES]
        anchor_generator = build_anchor_generator(cfg, shapes)
        return {
            "in_features": rpn.IN_FEATURES,
            "head": build_dense_head(cfg, shapes, anchor_generator.num_anchors, node=node),
            "anchor_generator": anchor_generator,
            "assigner": ASSIGNER_REGISTRY.build(cfg, node=node),
            "cls_loss": CLS_LOSS_REGISTRY.build(cfg, node=node),
            "box_loss": build_box_loss(cfg, node=node),
            "box_coder": BOX_CODER_REGISTRY.build(cfg, node=node),
            "loss_normalizer": build_loss_normalizer(cfg, node=node),
            "quality_branch": node.QUALITY_BRANCH,
            "score_rule": node.SCORE_RULE,
            "pre_nms_topk": (rpn.PRE_NMS_TOPK_TRAIN, rpn.PRE_NMS_TOPK_TEST),
            "post_nms_topk": (rpn.POST_NMS_TOPK_TRAIN, rpn.POST_NMS_TOPK_TEST),
            "nms_thresh": rpn.NMS_THRESH,
            "min_box_size": cfg.MODEL.PROPOSAL_GENERATOR.MIN_SIZE,
            "cls_weight": rpn.LOSS_WEIGHT,
            "box_weight": rpn.LOSS_WEIGHT * rpn.BBOX_REG_LOSS_WEIGHT,
        }

    @classmethod
    def check_config(cls, cfg: CfgNode) -> None:
        """Raise InputError for a changed key of either section that nobody reads."""
        check_keys(cfg)

    def forward(
        self,
        images: ImageList,
        features: dict[str, Tensor],
        gt_instances: list[Instances] | None = None,
    ) -> tuple[list[Instances], dict[str, Tensor]]:
        """Proposals, and in training the losses, as of Detectron2's RPN.

        Args:
            images: of which only ``image_sizes`` are read.
            features: by name, (N, C, Hi, Wi).
            gt_instances: N Instances with ``gt_boxes``; needed in training only.

        Returns:
            N Instances with ``proposal_boxes`` and ``objectness_logits``, best first; and
            ``loss_rpn_cls``, ``loss_rpn_loc`` and those of further outputs, or nothing.
        """
        levels = [features[name] for name in self.in_features]
        anchors = self.anchor_generator(levels)
        outputs = HeadOutputs.of(self.head(levels), type(self.head).__name__)
        check_named_quality(self.quality_branch, outputs, type(self.head).__name__)
        losses = {}
        if self.training:
            if gt_instances is None:
                raise ValueError("DenseRPN needs gt_instances in training")
            losses = self.losses(anchors, outputs, gt_instances)
        return self.proposals(anchors, outputs, images.image_sizes), losses

    def losses(
        self, anchors: list[Boxes], outputs: HeadOutputs, gt_instances: list[Instances]
    ) -> dict[str, Tensor]:
        """Sums over the batch divided by the loss normalizer, times their weights."""
        strides = strides_of_anchors(self.box_coder, anchors, self.anchor_generator)
        seen = []
        if needs_predictions(self.assigner):
            seen.append(HeadPredictions(outputs, anchors, self.box_coder, 1, strides))
        targets = self.assigner(anchors, [_objects(x) for x in gt_instances], *seen)
        numbers = num_box_outputs(self.box_coder)
        positives = Positives.of(anchors, outputs, targets, False, numbers, strides)
        cls_loss = classification_term(
            self.cls_loss, None, anchors, outputs, targets, positives, self.box_coder
        )
        losses = {
            "loss_rpn_cls": cls_loss * self.cls_weight,
            "loss_rpn_loc": box_term(self.box_loss, targets, positives) * self.box_weight,
        }
        if self.quality_branch:
            quality = quality_term(self.quality_branch, outputs, targets, positives, self.box_coder)
            losses["loss_rpn_quality"] = quality * self.box_weight
        losses |= named_terms(self.head, outputs, targets, anchors)
        normalizer = self.loss_normalizer(len(positives), targets.labels.numel())
        return {name: loss / normalizer for name, loss in losses.items()}

    @torch.no_grad()
    def proposals(
        self, anchors: list[Boxes], outputs: HeadOutputs, image_sizes: list[tuple[int, int]]
    ) -> list[Instances]:
        """The best boxes of N images; only those that NMS looks at are decoded."""
        if outputs.logits is None or outputs.deltas is None:
            raise ValueError("proposals need the head's logits and deltas as a whole")
        logits = outputs.logits
        if self.quality_branch:
            logits = joint_logits(logits, outputs.named["quality"], self.score_rule)
        strides = strides_of_anchors(self.box_coder, anchors, self.anchor_generator)
        counts = [len(x) for x in anchors]
        per_level = [None] * len(counts) if strides is None else strides.split(counts)
        topk = self.pre_nms_topk[self.training]
        scores, boxes = [], []
        for level, (x, deltas, of_level) in enumerate(
            zip(logits, outputs.deltas, anchors, strict=True)
        ):
            flat = at_least_float32(x).permute(0, 2, 3, 1).flatten(1)
            best = flat.topk(min(topk, flat.shape[1]), dim=1)
            images = torch.arange(len(flat), device=flat.device)[:, None].expand_as(best.indices)
            index = best.indices.flatten()
            numbers = num_box_outputs(self.box_coder)
            rows = gather_from_whole([deltas], images.flatten(), index, numbers)
            here = per_level[level]
            decoded = decode_boxes(
                self.box_coder,
                rows,
                of_level.tensor[index],
                None if here is None else here[index],
            )
            scores.append(best.values)
            boxes.append(decoded.view(*best.indices.shape, 4))
        return find_top_rpn_proposals(
            boxes,
            scores,
            image_sizes,
            self.nms_thresh,
            topk,
            self.post_nms_topk[self.training],
            self.min_box_size,
            self.training,
        )


def _objects(gt: Instances) -> Instances:
    """The boxes of an image, all of one class."""
    objects = Instances(gt.image_size, gt_boxes=gt.gt_boxes)
    objects.gt_classes = torch.zeros(len(gt), dtype=torch.int64, device=gt.gt_boxes.device)
    return objects
