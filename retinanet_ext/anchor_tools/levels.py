"""The anchors of a config's detector, level by level."""

from __future__ import annotations

import torch
from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import build_anchor_generator, build_backbone

from ..boxes import AnchorLevel
from ..errors import InputError

__all__ = ["anchor_levels", "levels_of"]


def anchor_levels(cfg: CfgNode) -> tuple[list[AnchorLevel], int]:
    """The anchors of each level of ``cfg``'s RetinaNet, and what images are padded to.

    Raises:
        InputError: the anchor generator has no fixed anchors around each location.
    """
    with torch.device("meta"):  # shapes only: no weights are drawn
        backbone = build_backbone(cfg)
    shapes = backbone.output_shape()
    features = [shapes[name] for name in cfg.MODEL.RETINANET.IN_FEATURES]
    return levels_of(cfg, features), backbone.size_divisibility or 1


def levels_of(cfg: CfgNode, features: list[ShapeSpec]) -> list[AnchorLevel]:
    """The same for feature maps of given strides.

    Raises:
        InputError: as above.
    """
    generator = build_anchor_generator(cfg, features)
    cells = [x.detach().numpy() for x in getattr(generator, "cell_anchors", ())]
    if not cells or any(x.ndim != 2 or x.shape[1] != 4 for x in cells):
        raise InputError(
            f"MODEL.ANCHOR_GENERATOR.NAME is '{cfg.MODEL.ANCHOR_GENERATOR.NAME}', which has no "
            "cell_anchors of four numbers; the fit of anchors is known for DefaultAnchorGenerator, "
            "RetinaNetAnchorGenerator or one derived from them"
        )
    return [
        AnchorLevel(float(stride), x, float(generator.offset))
        for stride, x in zip(generator.strides, cells, strict=True)
    ]
