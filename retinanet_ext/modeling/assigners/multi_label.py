"""Further classes of positive anchors, where objects of several classes share a place.

RetinaNet's sigmoids are independent, so that an anchor can learn more than one class: a person in
a uniform that is annotated as "person" and as "soldier".
"""

from __future__ import annotations

import torch
from detectron2.structures import Boxes, Instances, pairwise_iou
from torch import Tensor

from ...boxes import in_chunks
from ...errors import InputError


def check_multi_label_thresh(thresh: float) -> None:
    """Raise ValueError unless ``thresh`` is in (0, 1]."""
    if not 0 < thresh <= 1:
        raise InputError(
            f"MODEL.RETINANET.MULTI_LABEL_IOU_THRESH is {thresh}; set it to an IoU in (0, 1), for "
            "example 0.9, or to 1.0 for one class per anchor"
        )


@torch.no_grad()
def extra_classes(matched: Tensor, positive: Tensor, gt: Instances, iou_thresh: float) -> Tensor:
    """Classes of the boxes that coincide with the matched box of each positive anchor.

    Args:
        matched: (R,) int64, the ground-truth box in [0, M) of each anchor.
        positive: (R,) bool; the other anchors get no class.
        gt: M Instances of one image with ``gt_boxes`` and ``gt_classes``.
        iou_thresh: boxes of different classes coincide if their IoU is above it.

    Returns:
        (E, 2) int64 rows (anchor, class) in ascending order, each once, without the class of the
        anchor's own box.
    """
    pairs = _coinciding(gt.gt_boxes.tensor, gt.gt_classes.to(torch.int64), iou_thresh)
    boxes, classes = pairs.unbind(1)
    per_box = torch.bincount(boxes, minlength=max(len(gt), 1))
    anchors = positive.nonzero().squeeze(1)
    of_anchor = matched[anchors]
    counts = per_box[of_anchor]
    # Each anchor copies its box's run of rows, which `pairs` holds one after the other.
    first = (per_box.cumsum(0) - per_box)[of_anchor] - (counts.cumsum(0) - counts)
    rows = torch.arange(int(counts.sum()), device=matched.device) + first.repeat_interleave(counts)
    return torch.stack([anchors.repeat_interleave(counts), classes[rows]], dim=1)


def _coinciding(boxes: Tensor, classes: Tensor, iou_thresh: float) -> Tensor:
    """(Q, 2) rows (box, class of a box on top of it), ascending and each once."""
    all_boxes = Boxes(boxes)
    found = [torch.empty(0, 2, dtype=torch.int64, device=boxes.device)]
    for part in in_chunks(len(boxes), len(boxes)):
        together = pairwise_iou(Boxes(boxes[part]), all_boxes) > iou_thresh
        together &= classes[part, None] != classes
        box, other = together.nonzero(as_tuple=True)
        found.append(torch.stack([box + part.start, classes[other]], dim=1))
    return torch.cat(found).unique(dim=0)
