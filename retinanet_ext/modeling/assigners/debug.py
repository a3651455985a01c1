"""What an assigner did, object by object: for drawings and for reports on anchor coverage.

Letters: L levels, R anchors over all levels, M ground-truth boxes and P positive anchors of an
image.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from detectron2.structures import Boxes, Instances, pairwise_iou
from detectron2.structures.boxes import matched_pairwise_iou
from torch import Tensor

from ...boxes import in_chunks
from ...structures import DenseTargets


@dataclass(frozen=True)
class AssignmentDebug:
    """The assignment of one image.

    Attributes:
        num_positives: (M, L) int64, positive anchors of each box on each level.
        best_iou: (M,) float32, largest IoU of each box with any anchor, positive or not.
        pos_anchors: (P, 4) absolute XYXY pixels, in the order of the levels.
        pos_levels: (P,) int64 in [0, L).
        pos_gt: (P,) int64, the box in [0, M) that each positive anchor has to predict; -1 where it
            predicts none of them.
        pos_iou: (P,) float32, IoU of each positive anchor with that box; 0 without one.
        only_low_quality: (M,) bool, boxes whose positive anchors all have an IoU that alone would
            not make them positive; None from an assigner without low-quality matches.
        iou_thresholds: (M,) float64, the IoU from which on an anchor may be positive, where each
            box has its own; else None.
    """

    num_positives: Tensor
    best_iou: Tensor
    pos_anchors: Tensor
    pos_levels: Tensor
    pos_gt: Tensor
    pos_iou: Tensor
    only_low_quality: Tensor | None = None
    iou_thresholds: Tensor | None = None

    @property
    def is_covered(self) -> Tensor:
        """(M,) bool: boxes that at least one anchor has to predict."""
        return self.num_positives.sum(dim=1) > 0


@torch.no_grad()
def describe_assignment(
    targets: DenseTargets, anchors: list[Boxes], gt_instances: list[Instances]
) -> list[AssignmentDebug]:
    """Describe the result of any assigner.

    Where the assigner does not say which box a positive anchor has to predict, it is found again by
    its coordinates and class: of several equal objects, the first one counts as matched.

    Args:
        targets: what the assigner returned for the other two arguments.
        anchors: L Boxes (Hi*Wi*A, 4).
        gt_instances: N Instances with ``gt_boxes`` and ``gt_classes``.

    Raises:
        ValueError: if ``targets`` is not of this number of images and anchors.
    """
    all_anchors = Boxes.cat(anchors).tensor
    if targets.labels.shape != (len(gt_instances), len(all_anchors)):
        raise ValueError(
            f"targets are of (images, anchors) {tuple(targets.labels.shape)}, but there are "
            f"{len(gt_instances)} images and {len(all_anchors)} anchors; pass what the assigner got"
        )
    sizes = torch.tensor([len(x) for x in anchors], device=all_anchors.device)
    levels = torch.arange(len(anchors), device=all_anchors.device).repeat_interleave(sizes)
    return [
        _describe_image(targets, image, all_anchors, levels, len(anchors), gt)
        for image, gt in enumerate(gt_instances)
    ]


def _describe_image(
    targets: DenseTargets,
    image: int,
    anchors: Tensor,
    levels: Tensor,
    num_levels: int,
    gt: Instances,
) -> AssignmentDebug:
    positive = targets.pos_mask[image]
    pos_anchors, pos_levels = anchors[positive], levels[positive]
    boxes = targets.boxes[image, positive]
    if targets.matched_idxs is None:
        pos_gt = _find_boxes(boxes, targets.labels[image, positive], gt)
    else:
        pos_gt = targets.matched_idxs[image, positive]
    found = pos_gt >= 0
    iou = matched_pairwise_iou(Boxes(pos_anchors), Boxes(boxes)).nan_to_num() * found
    cells = (pos_gt * num_levels + pos_levels)[found]
    counts = torch.bincount(cells, minlength=len(gt) * num_levels)
    return AssignmentDebug(
        num_positives=counts.reshape(len(gt), num_levels),
        best_iou=_best_iou(gt.gt_boxes.tensor, anchors),
        pos_anchors=pos_anchors,
        pos_levels=pos_levels,
        pos_gt=pos_gt,
        pos_iou=iou,
    )


def _find_boxes(boxes: Tensor, labels: Tensor, gt: Instances) -> Tensor:
    """(P,) int64: the first object with these coordinates (P, 4) and class (P,), or -1."""
    index = torch.full((len(boxes),), -1, device=boxes.device)
    for part in reversed(in_chunks(len(gt), len(boxes))):  # the first one is written last
        same = (boxes[:, None] == gt.gt_boxes.tensor[part]).all(dim=2)
        same &= labels[:, None] == gt.gt_classes[part]
        index = torch.where(same.any(dim=1), same.int().argmax(dim=1) + part.start, index)
    return index


def _best_iou(gt_boxes: Tensor, anchors: Tensor) -> Tensor:
    """(M,): largest IoU of each box with any of (R, 4) anchors."""
    best = gt_boxes.new_zeros(len(gt_boxes))
    if len(anchors) == 0:
        return best
    for part in in_chunks(len(gt_boxes), len(anchors)):
        best[part] = pairwise_iou(Boxes(gt_boxes[part]), Boxes(anchors)).amax(dim=1)
    return best
