"""Box coders: what a head's numbers for a box mean, given its anchor.

Letters: P pairs of an anchor and a box, R anchors over all levels, B numbers per box.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.modeling.box_regression import Box2BoxTransform, Box2BoxTransformLinear
from detectron2.structures import Boxes
from torch import Tensor

from ..errors import InputError
from ..protocols import BoxCoder
from ..registry import BOX_CODER_REGISTRY, node_of, reads


@BOX_CODER_REGISTRY.register()
@reads("BBOX_REG_WEIGHTS")
def deltas(cfg: CfgNode, node: CfgNode | None = None) -> Box2BoxTransform:
    """The deltas of R-CNN (Sec. 4): shift of the centre in sizes of the anchor, log of the size."""
    return Box2BoxTransform(weights=node_of(cfg, node).BBOX_REG_WEIGHTS)


@BOX_CODER_REGISTRY.register()
@reads()
def ltrb(cfg: CfgNode, node: CfgNode | None = None) -> Box2BoxTransformLinear:
    """Distances from the anchor's centre to the four edges, in sizes of the anchor (FCOS).

    Negative distances count as 0, so that every box holds the centre of its anchor. With square
    anchors of the size of the stride, these are FCOS's distances in strides.
    """
    return Box2BoxTransformLinear(normalize_by_size=True)


def num_box_outputs(coder: BoxCoder) -> int:
    """B, how many numbers a box takes; 4 for a coder that does not say."""
    return int(getattr(coder, "num_outputs", 4))


def needs_strides(coder: BoxCoder | None) -> bool:
    """Whether the coder wants to know the strides of its anchors."""
    return bool(getattr(coder, "needs_strides", False))


def encode_boxes(coder: BoxCoder, anchors: Tensor, boxes: Tensor, strides: Tensor | None) -> Tensor:
    """Numbers (P, B) that stand for boxes (P, 4).

    Args:
        coder: an entry of BOX_CODER_REGISTRY.
        anchors, boxes: (P, 4), absolute XYXY pixels.
        strides: (P,) of the anchors' levels, in pixels; may be None if the coder needs none.
    """
    return coder.get_deltas(anchors, boxes, **_wanted(coder, strides))


def decode_boxes(
    coder: BoxCoder, outputs: Tensor, anchors: Tensor, strides: Tensor | None
) -> Tensor:
    """Boxes (P, 4), absolute XYXY pixels, that numbers (P, B) stand for; as :func:`encode_boxes`"""
    return coder.apply_deltas(outputs, anchors, **_wanted(coder, strides))


def strides_of_anchors(
    coder: BoxCoder | None, anchors: Sequence[Boxes], anchor_generator: Any
) -> Tensor | None:
    """Strides (R,) of the anchors of all levels, or None if the coder needs none.

    Args:
        coder: an entry of BOX_CODER_REGISTRY, or None.
        anchors: L Boxes (Hi*Wi*A, 4).
        anchor_generator: has ``strides``, one per level, as Detectron2's.

    Raises:
        InputError: the coder needs strides, and the anchor generator does not know them.
    """
    if not needs_strides(coder):
        return None
    strides = getattr(anchor_generator, "strides", None)
    if strides is None or len(strides) != len(anchors):
        raise InputError(
            f"the box coder {type(coder).__name__} needs the stride of each level, but the anchor "
            f"generator {type(anchor_generator).__name__} has no list `strides` of "
            f"{len(anchors)} levels; derive it from Detectron2's DefaultAnchorGenerator"
        )
    pairs = zip(anchors, strides, strict=True)
    return torch.cat([x.tensor.new_full((len(x),), float(stride)) for x, stride in pairs])


def _wanted(coder: BoxCoder, strides: Tensor | None) -> dict[str, Tensor]:
    if not needs_strides(coder):
        return {}
    if strides is None:
        raise ValueError(f"the box coder {type(coder).__name__} needs strides, and got none")
    return {"strides": strides}
