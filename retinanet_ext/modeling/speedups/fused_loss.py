"""Whether a head and a loss can do in parts what a training step otherwise does as a whole."""

from __future__ import annotations

import logging
from typing import Any

from torch import nn

logger = logging.getLogger(__name__)


def stands_for(cls: type, part: str, whole: str) -> bool:
    """Whether the method ``part`` was written for the method ``whole`` that ``cls`` has.

    A subclass that changes ``whole`` alone has inherited a ``part`` that knows nothing of it.
    """
    return _owner(cls, part) <= _owner(cls, whole)


def _owner(cls: type, name: str) -> int:
    """How far up among its bases ``cls`` finds ``name``."""
    return next((i for i, base in enumerate(cls.__mro__) if name in vars(base)), len(cls.__mro__))


def fuses_cls_loss(node: Any, head: nn.Module, cls_loss: nn.Module, num_anchors: list[int]) -> bool:
    """Whether the config asks for logits in pieces, and head and loss can do so.

    Args:
        node: MODEL.RETINANET.
        head, cls_loss: as the detector has them.
        num_anchors: per level.
    """
    least = node.FUSED_CLS_LOSS_MIN_CLASSES
    if not 0 <= least <= node.NUM_CLASSES or node.LOSS_KERNEL == "reference":
        return False
    parts = ("cls_features", "features_and_deltas")
    able = all(hasattr(head, x) for x in (*parts, "cls_score"))
    able = able and all(stands_for(type(head), part, "forward") for part in parts)
    # In pieces, every level uses all of the convolution's channels.
    able = able and len(set(num_anchors)) == 1
    able = able and hasattr(cls_loss, "from_features")
    if able and stands_for(type(cls_loss), "from_features", "forward"):
        return True
    logger.info(
        "MODEL.RETINANET.FUSED_CLS_LOSS_MIN_CLASSES has no effect: head %s or loss %s cannot be "
        "computed in pieces",
        node.HEAD,
        node.CLS_LOSS,
    )
    return False
