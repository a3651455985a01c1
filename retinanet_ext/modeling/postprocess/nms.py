"""Non-maximum suppression per class, no deeper than the detections that are asked for."""

from __future__ import annotations

from itertools import accumulate, pairwise

import torch
from detectron2.layers import batched_nms
from torch import Tensor
from torchvision.ops import nms

# Up to here torchvision's batched_nms on a CPU suppresses all classes in one pass, moved apart by
# an offset that is added to the boxes and rounds them; beyond, it takes class by class.
_MAX_BOXES_IN_ONE_PASS = 1000
# Boxes of the first round, in detections asked for, and how much further each round looks.
_FIRST_ROUND = 4
_GROWTH = 4


def top_batched_nms(
    boxes: Tensor, scores: Tensor, classes: Tensor, nms_thresh: float, max_detections: int
) -> Tensor:
    """The first ``max_detections`` indices of Detectron2's ``batched_nms``, best first.

    Whether a box is kept depends only on better ones. So where there are many boxes, they are
    looked at in rounds from the best down, until enough are kept.

    Args:
        boxes: (T, 4) finite absolute XYXY pixels, float32.
        scores: (T,); of equal ones, the first is the better.
        classes: (T,) int64.
        nms_thresh: a box is dropped if its IoU with a better kept one of its class is larger.
        max_detections: at most so many are returned.

    Returns:
        Indices (at most max_detections,) int64.
    """
    order = scores.sort(descending=True, stable=True).indices
    boxes, classes = boxes[order], classes[order]
    # Ranks for scores: equal ones are resolved above, and any dtype of scores will do.
    ranks = -torch.arange(order.shape[0], dtype=boxes.dtype, device=boxes.device)
    at_once = torch.jit.is_tracing() or boxes.device.type != "cpu"
    if at_once or len(boxes) <= _MAX_BOXES_IN_ONE_PASS:
        kept = batched_nms(boxes, ranks, classes, nms_thresh)
    else:
        kept = _nms_in_rounds(boxes, ranks, classes, nms_thresh, max_detections)
    return order[kept[:max_detections]]


def _nms_in_rounds(
    boxes: Tensor, ranks: Tensor, classes: Tensor, nms_thresh: float, max_detections: int
) -> Tensor:
    """Indices of kept boxes, best first; at least ``max_detections`` of them, or all."""
    kept = torch.empty(0, dtype=torch.int64)
    start, stop = 0, _FIRST_ROUND * max_detections
    while start < len(boxes) and len(kept) < max_detections:
        # What was dropped before suppresses nothing; what was kept stays, and suppresses.
        indices = torch.cat([kept, torch.arange(start, min(stop, len(boxes)))])
        kept = indices[_nms_per_class(boxes[indices], ranks[indices], classes[indices], nms_thresh)]
        start, stop = stop, stop * _GROWTH
    return kept


def _nms_per_class(boxes: Tensor, ranks: Tensor, classes: Tensor, nms_thresh: float) -> Tensor:
    """Rising indices of the kept of boxes that are sorted best first."""
    classes, order = classes.sort(stable=True)
    boxes, ranks = boxes[order], ranks[order]
    counts = classes.unique_consecutive(return_counts=True)[1].tolist()
    kept = torch.ones(len(order), dtype=torch.bool)
    for start, stop in pairwise(accumulate(counts, initial=0)):
        if stop - start > 1:
            of_class = slice(start, stop)
            kept[of_class] = False
            kept[of_class][nms(boxes[of_class], ranks[of_class], nms_thresh)] = True
    return order[kept].sort().values
