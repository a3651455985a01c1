"""Soft-NMS (Bodla et al. 2017, https://arxiv.org/abs/1704.04503): scores decay, no box is dropped.

Letters: T candidates of one image.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torchvision.ops import box_iou

from ...errors import InputError
from ...losses.precision import at_least_float32

SOFT_NMS_METHODS = ("gaussian", "linear")
"""Values of MODEL.RETINANET.SOFT_NMS_METHOD, see :func:`soft_nms`."""


def check_soft_nms_arguments(method: str, sigma: float) -> None:
    """Raise ValueError, naming the config key, unless both are as :func:`soft_nms` wants them."""
    if method not in SOFT_NMS_METHODS:
        raise InputError(
            f"MODEL.RETINANET.SOFT_NMS_METHOD is '{method}'; set it to one of "
            f"{', '.join(SOFT_NMS_METHODS)}"
        )
    if not 0 < sigma < math.inf:
        raise InputError(f"MODEL.RETINANET.SOFT_NMS_SIGMA must be finite and > 0, got {sigma}")


def soft_nms(
    boxes: Tensor,
    scores: Tensor,
    classes: Tensor,
    *,
    max_detections: int,
    score_thresh: float,
    method: str = "gaussian",
    sigma: float = 0.5,
    iou_thresh: float = 0.5,
) -> tuple[Tensor, Tensor]:
    """The best detections, each picked after those before it have lowered its score.

    The best box left is picked, and multiplies the score of each box of its class that is left, by
    their IoU: ``exp(-IoU^2 / sigma)`` ("gaussian") or ``1 - IoU`` from ``iou_thresh`` on
    ("linear"). All classes are processed at once, since a box lowers only its own class; and
    since scores only fall, the picks come best first and end with the last one wanted.

    Args:
        boxes: (T, 4) finite absolute XYXY pixels.
        scores: (T,) in [0, 1]; of equal ones, the first is picked.
        classes: (T,) int64.
        max_detections: at most so many are returned.
        score_thresh: lowered scores must be greater.
        method: one of SOFT_NMS_METHODS.
        sigma: of "gaussian", > 0; smaller is harder.
        iou_thresh: of "linear", the paper's Nt.

    Returns:
        Indices (at most max_detections,) int64, best first, and their lowered scores, at least
        float32.
    """
    check_soft_nms_arguments(method, sigma)
    scores = at_least_float32(scores)
    picked = torch.zeros_like(scores, dtype=torch.bool)
    picks: list[Tensor] = []
    # A fixed number of rounds: asking whether boxes are left would wait for the GPU in each.
    for _ in range(min(max_detections, len(boxes))):
        best = scores.masked_fill(picked, -math.inf).argmax(dim=0, keepdim=True)
        picks.append(best)
        picked.index_fill_(0, best, True)
        # Two boxes without area have no IoU: they do not overlap.
        iou = box_iou(boxes.index_select(0, best), boxes)[0].nan_to_num(nan=0.0)
        if method == "gaussian":
            decay = torch.exp(-(iou**2) / sigma)
        else:
            decay = 1 - iou.where(iou >= iou_thresh, torch.zeros_like(iou))
        lowers = (classes == classes.index_select(0, best)) & ~picked
        scores = torch.where(lowers, scores * decay, scores)
    # What was picked is not lowered any more.
    indices = torch.cat(picks) if picks else classes.new_empty(0, dtype=torch.int64)
    kept = indices[scores[indices] > score_thresh]
    return kept, scores[kept]
