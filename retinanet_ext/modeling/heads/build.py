"""Heads over the feature pyramid, with Detectron2's parameter names so that its weights load."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import partial

from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from torch import Tensor, nn

from ...errors import InputError
from ...registry import DENSE_HEAD_REGISTRY, node_of
from ...structures import DenseTargets, HeadOutputs
from ..speedups.sparse_tower import positive_outputs
from .dense_head import DenseHead


@DENSE_HEAD_REGISTRY.register()
class RetinaNetHead(DenseHead):
    """Two subnets of one shape with separate weights, shared across levels (Sec. 4, Fig. 3)."""

    freezable_parts = ("cls_subnet", "bbox_subnet", *DenseHead.freezable_parts)

    cls_subnet: nn.Sequential
    bbox_subnet: nn.Sequential

    def build_towers(self, make_tower: partial[nn.Sequential]) -> None:
        self.cls_subnet = make_tower()
        self.bbox_subnet = make_tower()

    def tower_features(self, features: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        cls_features = [self.cls_subnet(x) for x in features]
        return cls_features, [self.bbox_subnet(x) for x in features]

    def partial_outputs(
        self, features: list[Tensor], targets: DenseTargets, wanted: Collection[str]
    ) -> HeadOutputs:
        """See :class:`retinanet_ext.protocols.PartialHead`; a subclass has to opt in again."""
        fused, deltas = "cls_features" in wanted, None
        # Further outputs need the box subnet as a whole.
        plain = self.quality_pred is None and type(self).named_outputs is DenseHead.named_outputs
        if plain and "positive_deltas" in wanted:
            deltas = positive_outputs(
                self.bbox_subnet, self.bbox_pred, features, targets, self.level_anchors
            )
        if deltas is None:
            return self.outputs(features, logits=not fused)
        cls_features = [self.cls_subnet(x) for x in features]
        if fused:
            return HeadOutputs(cls_features=cls_features, positive_deltas=deltas)
        logits = self.predict(self.cls_score, cls_features)
        return HeadOutputs(logits=logits, positive_deltas=deltas)


@DENSE_HEAD_REGISTRY.register()
class SharedTowerHead(DenseHead):
    """One subnet for both predictors, about half the computation of :class:`RetinaNetHead`.

    Class and box are learned from the same features, as in the RPN; the paper keeps the parameters
    of its subnets separate (Sec. 4, "Box Regression Subnet").
    """

    freezable_parts = ("subnet", *DenseHead.freezable_parts)

    subnet: nn.Sequential

    def build_towers(self, make_tower: partial[nn.Sequential]) -> None:
        self.subnet = make_tower()

    def tower_features(self, features: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        shared = [self.subnet(x) for x in features]
        return shared, shared

    def partial_outputs(
        self, features: list[Tensor], targets: DenseTargets, wanted: Collection[str]
    ) -> HeadOutputs:
        """See :class:`retinanet_ext.protocols.PartialHead`; a subclass has to opt in again."""
        return self.outputs(features, logits="cls_features" not in wanted)


def build_dense_head(
    cfg: CfgNode,
    input_shape: Sequence[ShapeSpec],
    num_anchors: Sequence[int],
    node: CfgNode | None = None,
) -> nn.Module:
    """The head that MODEL.RETINANET.HEAD names; it gets one number where all levels have as many.

    Args:
        cfg: the config.
        input_shape: channels and stride of each level.
        num_anchors: one number per level.
        node: the section to read. Default: ``MODEL.RETINANET``.

    Raises:
        ConfigError: if there is no such head.
        ValueError: if the head cannot do what the config asks for: levels with different numbers
            of anchors, a box regressor per class, or a quality branch.
    """
    section, node = node, node_of(cfg, node)
    entry = DENSE_HEAD_REGISTRY.get(node.HEAD)
    counts = list(num_anchors)
    same = len(set(counts)) == 1
    if not same and not getattr(entry, "anchors_per_level", False):
        raise InputError(
            f"MODEL.ANCHOR_GENERATOR gives {counts} anchors at the levels, but the head "
            f"{node.HEAD} takes one number; give each level as many, or the head "
            "anchors_per_level = True"
        )
    head = DENSE_HEAD_REGISTRY.build(cfg, input_shape, counts[0] if same else counts, node=section)
    if not node.CLS_AGNOSTIC_BBOX_REG and getattr(head, "cls_agnostic_bbox_reg", True):
        raise InputError(
            "MODEL.RETINANET.CLS_AGNOSTIC_BBOX_REG is False, but the head "
            f"{node.HEAD} has one regressor for all classes; set it to True"
        )
    predicts_quality = getattr(head, "quality_pred", None) is not None
    if predicts_quality and not node.QUALITY_BRANCH:
        raise InputError(
            f"the head {node.HEAD} has a quality_pred, but MODEL.RETINANET.QUALITY_BRANCH is ''; "
            "set it to what that has to learn, 'iou', 'centerness' or 'objectness'"
        )
    if node.QUALITY_BRANCH and not predicts_quality:
        raise InputError(
            f"MODEL.RETINANET.QUALITY_BRANCH is '{node.QUALITY_BRANCH}', but the head {node.HEAD} "
            "has no quality_pred; set it to ''"
        )
    return head
