"""What dense heads have in common, with Detectron2's parameter names so that its weights load.

Letters: N images, C channels, L levels, A anchors per location (Ai where levels differ), K
classes, Hi x Wi locations of level i, B deltas per anchor: 4 or what the box coder takes, times K
with a box regressor per class.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, ClassVar

import torch.nn.functional as F
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from torch import Tensor, nn

from ...errors import ConfigError, InputError, did_you_mean
from ...registry import BOX_CODER_REGISTRY, node_of
from ...structures import HeadOutputs
from ..classifier import num_class_outputs
from ..coders import num_box_outputs
from ..speedups.hooked import is_hooked
from .prior import init_with_prior, prior_logit
from .towers import build_tower, few_values_warning


class DenseHead(nn.Module):
    """Predictors over towers, their first weights, the prior.

    Subclasses build their towers in :meth:`build_towers` and run them in :meth:`tower_features`;
    what else they predict, they name in :meth:`named_outputs`.

    Where levels have different numbers of anchors, the predictors hold the channels of the largest
    number, and a level with Ai anchors uses the first Ai anchors' channels. Anchor a of one level
    then shares its weights with anchor a of every other level that has so many.
    """

    anchors_per_level = True
    """``num_anchors`` may be a list, one number per level."""

    config_keys: ClassVar[tuple[str, ...]] = ("HEAD_WIDTH", "NORM_PER_LEVEL")

    freezable_parts: ClassVar[tuple[str, ...]] = ("cls_score", "bbox_pred", "quality_pred")
    """What FREEZE can name of this head. Of a class that says nothing itself, the trainer looks at
    the model."""

    @configurable
    def __init__(
        self,
        *,
        input_shape: Sequence[ShapeSpec],
        num_classes: int,
        num_anchors: int | Sequence[int],
        conv_dims: Sequence[int],
        norm: str = "",
        norm_per_level: str = "auto",
        prior_prob: float = 0.01,
        cls_agnostic_bbox_reg: bool = True,
        predicts_quality: bool = False,
        box_outputs: int = 4,
        classifier: str = "sigmoid",
    ):
        """
        Args:
            input_shape: channels and stride of each level; all levels have the same channels.
            num_classes: K.
            num_anchors: A, or one number for each level.
            conv_dims: output channels of each convolution in a tower.
            norm: "" or a name for :func:`detectron2.layers.get_norm`.
            norm_per_level: what of the norms differs between levels, see :func:`build_tower`.
            prior_prob: pi, the probability of an object that a fresh head gives every anchor
                (Sec. 3.3), so that background does not swamp the first iterations: each class, or
                with "softmax" all classes together.
            cls_agnostic_bbox_reg: one box per anchor (Sec. 4, "Box Regression Subnet"); False: one
                for each class, so K times as many.
            predicts_quality: ``quality_pred`` beside ``bbox_pred``, one logit per anchor that says
                how good its box is; see :mod:`.quality_branch`.
            box_outputs: how many numbers a box takes, see BOX_CODER_REGISTRY.
            classifier: "sigmoid", or "softmax" with one more output for the background; see
                :mod:`..classifier`.

        Raises:
            ValueError: if pi is outside of (0, 1), the levels' channels differ, or the numbers of
                anchors are not one per level.
        """
        super().__init__()
        prior_logit(prior_prob)  # raises before anything is built
        channels = [shape.channels for shape in input_shape]
        if len(set(channels)) != 1:
            raise InputError(
                "the head is shared across levels, so all of MODEL.RETINANET.IN_FEATURES need the "
                f"same channels, got {channels}"
            )
        counts = _counts(num_anchors, len(channels))
        self.num_classes = num_classes
        self.level_anchors = counts
        # Of the features, and of what the predictors see.
        self.in_channels, self.out_channels = channels[0], [channels[0], *conv_dims][-1]
        self.cls_agnostic_bbox_reg = cls_agnostic_bbox_reg
        self.build_towers(
            partial(build_tower, channels[0], conv_dims, norm, len(channels), norm_per_level)
        )
        out_channels = self.out_channels
        deltas_per_anchor = box_outputs * (1 if cls_agnostic_bbox_reg else num_classes)
        self.classifier = classifier
        class_outputs = num_class_outputs(num_classes, classifier)
        self.cls_score = nn.Conv2d(out_channels, max(counts) * class_outputs, 3, padding=1)
        self.bbox_pred = nn.Conv2d(out_channels, max(counts) * deltas_per_anchor, 3, padding=1)
        self.quality_pred = None
        if predicts_quality:
            self.quality_pred = nn.Conv2d(out_channels, max(counts), 3, padding=1)
        init_with_prior(self, prior_prob)

    @classmethod
    def check_config(cls, cfg: CfgNode, node: CfgNode | None = None) -> list[str]:
        """Raise on parts to freeze that the head does not have, and on norms that nothing sets.

        Returns:
            A warning where batch norm has too little to take its statistics from.

        Raises:
            ConfigError: FREEZE names something else than a part of the model.
            InputError: NORM_PER_LEVEL is set, and there are no norms.
        """
        node = node_of(cfg, node)
        # A subclass may have further parts, so it has to name them itself.
        own = vars(cls).get("freezable_parts")
        parts = () if own is None else ("backbone", "fpn", "head", *own)
        for name in node.FREEZE if parts else ():
            if name not in parts and "." not in name:  # the trainer looks for others in the model
                raise ConfigError(
                    f"MODEL.RETINANET.FREEZE holds '{name}', which is no part of a model with the "
                    f"head {cls.__name__}.{did_you_mean(str(name), parts)} Known: "
                    f"{', '.join(parts)}."
                )
        if node.NORM_PER_LEVEL != "auto" and not node.NORM:
            raise InputError(
                f"MODEL.RETINANET.NORM_PER_LEVEL is '{node.NORM_PER_LEVEL}', but the head has no "
                "norms; set MODEL.RETINANET.NORM"
            )
        return few_values_warning(cfg, node)

    @classmethod
    def from_config(
        cls,
        cfg: CfgNode,
        input_shape: Sequence[ShapeSpec],
        num_anchors: int | Sequence[int],
        node: CfgNode | None = None,
    ) -> dict[str, Any]:
        cls.check_config(cfg, node)
        section, node = node, node_of(cfg, node)
        return {
            "input_shape": input_shape,
            "num_classes": node.NUM_CLASSES,
            "num_anchors": num_anchors,
            "conv_dims": [node.HEAD_WIDTH or input_shape[0].channels] * node.NUM_CONVS,
            "norm": node.NORM,
            "norm_per_level": node.NORM_PER_LEVEL,
            "prior_prob": node.PRIOR_PROB,
            "cls_agnostic_bbox_reg": node.CLS_AGNOSTIC_BBOX_REG,
            "predicts_quality": node.QUALITY_BRANCH != "",
            "box_outputs": num_box_outputs(BOX_CODER_REGISTRY.build(cfg, node=section)),
            "classifier": node.CLASSIFIER,
        }

    def build_towers(self, make_tower: partial[nn.Sequential]) -> None:
        """Assign towers, each one call of ``make_tower``, to attributes."""
        raise NotImplementedError

    def tower_features(self, features: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """What ``cls_score`` and ``bbox_pred`` see: L tensors (N, C, Hi, Wi) each.

        Each tower is called once for each level, in order.
        """
        raise NotImplementedError

    def named_outputs(
        self, cls_features: list[Tensor], bbox_features: list[Tensor]
    ) -> dict[str, Any]:
        """What the head predicts beside logits and deltas, by name; the detector carries it along.

        ``quality``, L tensors (N, Ai, Hi, Wi), with ``predicts_quality``; else nothing.

        Args:
            cls_features, bbox_features: what ``cls_score`` and ``bbox_pred`` see.
        """
        if self.quality_pred is None:
            return {}
        return {"quality": self.predict(self.quality_pred, bbox_features)}

    def forward(self, features: list[Tensor]) -> HeadOutputs:
        """Logits, deltas and :meth:`named_outputs` on L feature maps (N, C, Hi, Wi)."""
        return self.outputs(features)

    def outputs(self, features: list[Tensor], logits: bool = True) -> HeadOutputs:
        """As :meth:`forward`; without ``logits``, with ``cls_features`` in their place."""
        cls_features, bbox_features = self.tower_features(features)
        return HeadOutputs(
            logits=self.predict(self.cls_score, cls_features) if logits else None,
            deltas=self.predict(self.bbox_pred, bbox_features),
            named=self.named_outputs(cls_features, bbox_features),
            cls_features=None if logits else cls_features,
        )

    def predict(self, conv: nn.Conv2d, features: list[Tensor]) -> list[Tensor]:
        """A predictor's outputs on L features (N, C, Hi, Wi), of each level's own Ai anchors.

        Args:
            conv: 3x3, to max(Ai) times so many channels as an anchor has.
            features: what the predictor sees.
        """
        per_anchor = conv.out_channels // max(self.level_anchors)
        return [
            _convolve_first(conv, x, count * per_anchor)
            for x, count in zip(features, self.level_anchors, strict=True)
        ]


def _counts(num_anchors: int | Sequence[int], num_levels: int) -> list[int]:
    """``num_anchors`` as a list of one number per level."""
    if isinstance(num_anchors, int):
        return [num_anchors] * num_levels
    if len(num_anchors) != num_levels:
        raise InputError(
            f"num_anchors must be one number, or one for each of {num_levels} levels, got "
            f"{list(num_anchors)}"
        )
    return list(num_anchors)


def _convolve_first(conv: nn.Conv2d, x: Tensor, channels: int) -> Tensor:
    """The first ``channels`` of ``conv(x)``, for stride 1 and zero padding to the same size."""
    if channels == conv.out_channels:
        return conv(x)
    if is_hooked(conv):
        return conv(x)[:, :channels]
    bias = None if conv.bias is None else conv.bias[:channels]
    return F.conv2d(x, conv.weight[:channels], bias, padding=conv.padding)
