"""Whether a detector's classification loss makes the logits in pieces."""

from __future__ import annotations

import logging

from detectron2.config import CfgNode
from torch import nn

from .opt_in import opts_in

logger = logging.getLogger(__name__)


def fuses_cls_loss(
    node: CfgNode, head: nn.Module, cls_loss: object, num_anchors: list[int]
) -> bool:
    """Whether the config asks for logits in pieces, and the classes of head and loss opt in.

    Args:
        node: MODEL.RETINANET.
        head, cls_loss: as the detector has them.
        num_anchors: per level.
    """
    least = node.FUSED_CLS_LOSS_MIN_CLASSES
    if not 0 <= least <= node.NUM_CLASSES or node.LOSS_KERNEL == "reference":
        return False
    # In pieces, every level uses all of the convolution's channels.
    able = len(set(num_anchors)) == 1 and hasattr(head, "cls_score")
    if able and opts_in(head, "partial_outputs") and opts_in(cls_loss, "from_features"):
        return True
    logger.info(
        "MODEL.RETINANET.FUSED_CLS_LOSS_MIN_CLASSES has no effect: head %s or loss %s cannot be "
        "computed in pieces; a subclass says that it can with partial_outputs or from_features in "
        "its own body",
        node.HEAD,
        node.CLS_LOSS,
    )
    return False
