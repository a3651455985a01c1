"""Regions in which background is not to be learned: crowds, and objects marked as ignored.

Letters: N images, R anchors over all levels, I ignored boxes of an image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from detectron2.structures import Boxes, pairwise_ioa
from torch import Tensor

from ...boxes import in_chunks
from ...errors import InputError
from ...structures import IGNORE_LABEL, DenseTargets


@torch.no_grad()
def ignore_anchors(
    targets: DenseTargets,
    anchors: list[Boxes],
    ignore_boxes: Sequence[Boxes | None],
    thresh: float,
) -> DenseTargets:
    """Take background anchors inside of ignored boxes out of the loss.

    Inside is an anchor whose intersection with any single ignored box is at least ``thresh`` of the
    anchor's own area. Positive anchors stay. Nothing is read back from the device.

    Args:
        targets: what the assigner returned; left as it is.
        anchors: L Boxes (Hi*Wi*A, 4).
        ignore_boxes: per image, Boxes (I, 4) on any device, or None for no box.
        thresh: in (0, 1]; above 1 changes nothing.

    Returns:
        ``targets`` with -1 as the label of those anchors.

    Raises:
        ValueError: if there is not one entry of ``ignore_boxes`` per image.
    """
    if len(ignore_boxes) != targets.num_images:
        raise InputError(
            f"ignore_boxes has {len(ignore_boxes)} entries for {targets.num_images} images; give "
            "one per image, None where there is nothing to ignore"
        )
    if thresh > 1 or not any(boxes is not None and len(boxes) for boxes in ignore_boxes):
        return targets
    all_anchors = Boxes.cat(anchors)
    labels = targets.labels.clone()
    for of_image, boxes in zip(labels, ignore_boxes, strict=True):
        if boxes is not None and len(boxes):
            inside = _is_inside(all_anchors, boxes.to(all_anchors.device), thresh)
            of_image.masked_fill_(inside & (of_image == targets.num_classes), IGNORE_LABEL)
    return replace(targets, labels=labels)


def _is_inside(anchors: Boxes, boxes: Boxes, thresh: float) -> Tensor:
    """(R,) bool, a few of the I boxes at a time."""
    inside = torch.zeros(len(anchors), dtype=torch.bool, device=anchors.device)
    for chunk in in_chunks(len(boxes), len(anchors)):
        share = pairwise_ioa(boxes[chunk], anchors)  # of the anchors' areas
        inside |= (share >= thresh).any(dim=0)
    return inside
