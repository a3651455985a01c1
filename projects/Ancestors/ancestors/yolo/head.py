"""YOLO's head: for each level a convolution, then classes, boxes and objectness by 1 x 1."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from torch import nn

from retinanet_ext.errors import InputError
from retinanet_ext.modeling.heads.prior import prior_logit
from retinanet_ext.registry import DENSE_HEAD_REGISTRY, node_of

from ..per_level import PerLevelHead


@DENSE_HEAD_REGISTRY.register()
class YOLOHead(PerLevelHead):
    """Five numbers and K class logits for each anchor, of each level's own weights.

    A fresh head gives every anchor the objectness ``prior_prob``, as RetinaNet its classes; YOLO
    starts at one half.
    """

    config_keys: ClassVar[tuple[str, ...]] = ("HEAD_WIDTH",)
    freezable_parts: ClassVar[tuple[str, ...]] = (*PerLevelHead.freezable_parts, "quality_pred")
    predictor_size = 1

    @configurable
    def __init__(self, *, prior_prob: float = 0.01, **of_levels: Any):
        """
        Args:
            prior_prob: in (0, 1), see the class.
            of_levels: as of :class:`PerLevelHead`, with ``predicts_quality``.
        """
        super().__init__(**{"predicts_quality": True, **of_levels})
        objectness = prior_logit(prior_prob)
        _draw_weights(self.cls_score)
        _draw_weights(self.bbox_pred)
        _draw_weights(self.quality_pred or (), objectness)

    @classmethod
    def from_config(
        cls,
        cfg: CfgNode,
        input_shape: Sequence[ShapeSpec],
        num_anchors: int | Sequence[int],
        node: CfgNode | None = None,
    ) -> dict[str, Any]:
        found = super().from_config(cfg, input_shape, num_anchors, node)
        node = node_of(cfg, node)
        return {
            **found,
            "tower_width": node.HEAD_WIDTH or input_shape[0].channels,
            "norm": node.NORM,
            "prior_prob": node.PRIOR_PROB,
        }

    @classmethod
    def check_config(cls, cfg: CfgNode, node: CfgNode | None = None) -> None:
        """Raise InputError unless the quality that is predicted is objectness."""
        node = node_of(cfg, node)
        if node.QUALITY_BRANCH != "objectness":
            raise InputError(
                f"MODEL.RETINANET.QUALITY_BRANCH is '{node.QUALITY_BRANCH}', but the head "
                f"{cls.__name__} predicts objectness; set it to objectness"
            )


def _draw_weights(predictors: Iterable[nn.Module], bias: float = 0.0) -> None:
    for conv in predictors:
        assert isinstance(conv, nn.Conv2d) and conv.bias is not None
        nn.init.normal_(conv.weight, std=0.01)
        nn.init.constant_(conv.bias, bias)
