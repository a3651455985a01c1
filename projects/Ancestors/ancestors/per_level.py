"""A head whose levels share nothing, as those of SSD and YOLO.

Letters: N images, C channels and A anchors per location (levels may differ in both), L levels, K
classes, Hi x Wi locations of level i, B numbers per box.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec, get_norm
from torch import Tensor, nn

from retinanet_ext.errors import InputError
from retinanet_ext.modeling.classifier import num_class_outputs
from retinanet_ext.modeling.coders import num_box_outputs
from retinanet_ext.registry import BOX_CODER_REGISTRY, node_of
from retinanet_ext.structures import HeadOutputs


class PerLevelHead(nn.Module):
    """One 3x3 predictor of classes and one of boxes for each level, on that level's own channels.

    A subclass chooses the first weights, and may put a tower before the predictors.
    """

    anchors_per_level = True
    freezable_parts: ClassVar[tuple[str, ...]] = ("towers", "cls_score", "bbox_pred")
    predictor_size = 3

    @configurable
    def __init__(
        self,
        *,
        input_shape: Sequence[ShapeSpec],
        num_classes: int,
        num_anchors: int | Sequence[int],
        box_outputs: int = 4,
        classifier: str = "sigmoid",
        predicts_quality: bool = False,
        tower_width: int = 0,
        norm: str = "",
    ):
        """
        Args:
            input_shape: channels of each level.
            num_classes: K.
            num_anchors: A, or one number for each level.
            box_outputs: B.
            classifier: "sigmoid" or "softmax", see :mod:`retinanet_ext.modeling.classifier`.
            predicts_quality: one more logit for each anchor, the output ``quality``.
            tower_width: channels of a convolution before the predictors; 0 is none.
            norm: of that convolution, a name for :func:`detectron2.layers.get_norm`.
        """
        super().__init__()
        counts = [num_anchors] * len(input_shape) if isinstance(num_anchors, int) else num_anchors
        self.num_classes, self.level_anchors = num_classes, list(counts)
        self.classifier = classifier
        self.towers = nn.ModuleList(
            _tower(shape.channels, tower_width, norm) if tower_width else nn.Identity()
            for shape in input_shape
        )
        widths = [tower_width or shape.channels for shape in input_shape]
        class_outputs = num_class_outputs(num_classes, classifier)
        self.cls_score = self._predictors(widths, class_outputs)
        self.bbox_pred = self._predictors(widths, box_outputs)
        self.quality_pred = self._predictors(widths, 1) if predicts_quality else None

    def _predictors(self, widths: Sequence[int], outputs: int) -> nn.ModuleList:
        size = self.predictor_size
        return nn.ModuleList(
            nn.Conv2d(width, count * outputs, size, padding=size // 2)
            for width, count in zip(widths, self.level_anchors, strict=True)
        )

    @classmethod
    def from_config(
        cls,
        cfg: CfgNode,
        input_shape: Sequence[ShapeSpec],
        num_anchors: int | Sequence[int],
        node: CfgNode | None = None,
    ) -> dict[str, Any]:
        section, node = node, node_of(cfg, node)
        if not node.CLS_AGNOSTIC_BBOX_REG:
            raise InputError(
                "MODEL.RETINANET.CLS_AGNOSTIC_BBOX_REG is False, but the head "
                f"{node.HEAD} has one box per anchor; set it to True"
            )
        return {
            "input_shape": input_shape,
            "num_classes": node.NUM_CLASSES,
            "num_anchors": num_anchors,
            "box_outputs": num_box_outputs(BOX_CODER_REGISTRY.build(cfg, node=section)),
            "classifier": node.CLASSIFIER,
            "predicts_quality": node.QUALITY_BRANCH != "",
        }

    def forward(self, features: list[Tensor]) -> HeadOutputs:
        """Logits, deltas and, where there is one, ``quality`` on L features (N, C, Hi, Wi)."""
        seen = [tower(x) for tower, x in zip(self.towers, features, strict=True)]
        named = {}
        if self.quality_pred is not None:
            named["quality"] = _each(self.quality_pred, seen)
        return HeadOutputs(_each(self.cls_score, seen), _each(self.bbox_pred, seen), named)


def _tower(channels: int, width: int, norm: str) -> nn.Sequential:
    conv = nn.Conv2d(channels, width, 3, padding=1, bias=not norm)
    norms = [get_norm(norm, width)] if norm else []
    return nn.Sequential(conv, *norms, nn.LeakyReLU(0.1))


def _each(convs: nn.ModuleList, features: list[Tensor]) -> list[Tensor]:
    return [conv(x) for conv, x in zip(convs, features, strict=True)]
