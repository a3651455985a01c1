"""What the head's quality branch learns: how good the box of an anchor is.

A box can fit badly where its class is sure. A third predictor beside the deltas tells such boxes
separately: it learns, only at positive anchors, either the IoU of the predicted box with its ground
truth (IoU-aware RetinaNet, arXiv 1912.05992), or how central the anchor lies in it (FCOS, arXiv
1904.01355; ATSS, arXiv 1912.02424). Or it learns at all anchors whether they have an object (YOLO,
arXiv 1804.02767).

Letters: N images, A anchors per location, R anchors over all levels, P positive anchors.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ...errors import InputError
from ...losses.layout import element_losses
from ...losses.precision import at_least_float32
from ...protocols import BoxCoder
from ...structures import DenseTargets, HeadOutputs
from .quality import box_quality

QUALITY_BRANCHES = ("", "iou", "centerness", "objectness")
"""Values of MODEL.RETINANET.QUALITY_BRANCH."""


def check_named_quality(kind: str, outputs: HeadOutputs, head: str) -> None:
    """Raise ValueError if ``kind`` and the head's outputs do not agree on whether it has a branch.

    Args:
        kind: one of QUALITY_BRANCHES.
        outputs: of the head.
        head: its name, for the message.
    """
    named = "quality" in outputs.named
    if kind and not named:
        raise InputError(
            f"MODEL.RETINANET.QUALITY_BRANCH is '{kind}', but the head {head} has no output named "
            "quality; set it to '', or return HeadOutputs(..., named={'quality': ...})"
        )
    if named and not kind:
        raise InputError(
            f"the head {head} has an output named quality, but MODEL.RETINANET.QUALITY_BRANCH is "
            f"''; set it to what that has to learn, one of {', '.join(QUALITY_BRANCHES[1:])}, or "
            "give the output another name"
        )


def quality_branch_loss(
    kind: str,
    logits: Tensor,
    deltas: Tensor,
    anchors: Tensor,
    gt_boxes: Tensor,
    box2box_transform: BoxCoder,
    strides: Tensor | None = None,
) -> Tensor:
    """Sum of the binary cross entropy between sigmoid(logits) and the quality, which is a constant.

    Args:
        kind: "iou" or "centerness".
        logits: (P,), of the quality branch.
        deltas: (P, 4), predicted; only "iou" reads them.
        anchors, gt_boxes: (P, 4), absolute XYXY pixels.
        box2box_transform: decodes the deltas, an entry of BOX_CODER_REGISTRY.
        strides: (P,) of the anchors, for a coder that needs them.
    """
    logits = at_least_float32(logits)
    if kind == "iou":
        target = box_quality(deltas, anchors, gt_boxes, box2box_transform, strides)
    else:
        target = centerness(anchors, gt_boxes)
    return F.binary_cross_entropy_with_logits(logits, target.to(logits.dtype), reduction="sum")


def objectness_loss(quality: list[Tensor], targets: DenseTargets) -> Tensor:
    """Sum of the binary cross entropy of whether an anchor has an object, over all not ignored.

    Args:
        quality: L logits (N, A, Hi, Wi).
        targets: of the N images.
    """
    losses = element_losses(
        [at_least_float32(x) for x in quality],
        torch.where(targets.pos_mask, 0, targets.labels.clamp(max=1)),
        1,
        lambda x, truth: F.softplus(torch.where(truth, -x, x)),
    )
    return torch.stack([x.sum() for x in losses]).sum()


@torch.no_grad()
def centerness(anchors: Tensor, gt_boxes: Tensor) -> Tensor:
    """Centerness (P,) in [0, 1] of the anchors' centres in their boxes (FCOS, Eq. 3).

    1 in the middle, falling to 0 at the edges; 0 outside and for boxes without area.

    Args:
        anchors, gt_boxes: (P, 4), absolute XYXY pixels.
    """
    centres = (anchors[:, :2] + anchors[:, 2:]) / 2
    before, after = centres - gt_boxes[:, :2], gt_boxes[:, 2:] - centres  # left, top; right, bottom
    near, far = torch.minimum(before, after), torch.maximum(before, after)
    ratios = torch.where(near > 0, near / far, 0.0)
    return ratios.prod(dim=1).sqrt()
