"""Matching of anchors to ground-truth boxes without the full matrix of their IoUs.

Letters: R anchors over all levels, M ground-truth boxes of an image, G of them at a time.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ...boxes import in_chunks
from ...errors import InputError

GPU_PAIRS_AT_ONCE = 2**24  # 200 MiB of scratch: 90 boxes of an image of 800 x 1216 px


class ChunkedMatcher:
    """The matches of Detectron2's ``pairwise_iou`` and ``Matcher``, in memory of O(R) for any M.

    Each anchor gets the ground-truth box of its largest IoU (the first one of equals) and the label
    of the band that this IoU lies in. With ``allow_low_quality_matches`` the anchors that have a
    box's largest IoU, all of them where several are equal, are positive in any band (Faster R-CNN,
    arXiv 1506.01497, Sec. 3.1.2, case i); each keeps the box of its own largest IoU.

    Bit by bit the same IoUs, indices and labels as Detectron2's, but for one rule: a box that
    overlaps no anchor takes no part, as if it were not there.

    Nothing is read back from the device, so CUDA is never waited for.
    """

    def __init__(
        self,
        thresholds: Sequence[float],
        labels: Sequence[int],
        allow_low_quality_matches: bool = False,
        pairs_at_once: int | None = None,
    ):
        """
        Args:
            thresholds: rising, in (0, 1); the lower bounds of all bands but the first.
            labels: -1, 0 or 1 for each band; one more than there are thresholds.
            allow_low_quality_matches: see the class.
            pairs_at_once: IoUs in memory at a time, but at least one box's R; None chooses by
                device.
        """
        if len(labels) != len(thresholds) + 1:
            raise InputError(
                f"a matcher needs one label more than thresholds, got labels {list(labels)} for "
                f"thresholds {list(thresholds)}"
            )
        self.thresholds = list(thresholds)
        self.labels = list(labels)
        self.allow_low_quality_matches = allow_low_quality_matches
        self.pairs_at_once = pairs_at_once

    @torch.no_grad()
    def __call__(self, gt_boxes: Tensor, anchors: Tensor) -> tuple[Tensor, Tensor]:
        """Match the anchors of one image.

        Args:
            gt_boxes: (M, 4) finite absolute XYXY pixels, of the anchors' dtype and device.
            anchors: (R, 4) in the same form.

        Returns:
            ``matched_indices`` (R,) int64 in [0, M): the box of each anchor; defined for anchors
            without overlap too, and 0 where no box takes part.
            ``match_labels`` (R,) int8 in {-1, 0, 1}; 0 where no box takes part.
        """
        matched = anchors.new_zeros(len(anchors), dtype=torch.int64)
        if len(gt_boxes) == 0 or len(anchors) == 0:
            return matched, matched.to(torch.int8)
        best = anchors.new_zeros(len(anchors))  # IoU with the matched box
        is_best_of_a_box = torch.zeros_like(best, dtype=torch.bool)
        # No list of small tensors: kept between large short-lived ones, they fragment the heap.
        best_of_boxes = anchors.new_zeros(len(gt_boxes))
        chunks = in_chunks(len(gt_boxes), len(anchors), self._pairs_at_once(anchors))
        overlaps = _Overlaps(anchors, chunks[0].stop)
        for of_chunk in chunks:
            iou = overlaps(gt_boxes[of_chunk])  # (G, R)
            largest, row = _max_over_boxes(iou)
            # A later box has to be better than all before it: of equals, the first one stays.
            torch.where(largest > best, row + of_chunk.start, matched, out=matched)
            torch.maximum(best, largest, out=best)
            best_of_boxes[of_chunk] = iou.amax(dim=1).clamp_(min=0)
            if self.allow_low_quality_matches:
                is_best_of_a_box |= _has_row_maximum(iou, best_of_boxes[of_chunk])
        overlaps_an_anchor = best_of_boxes > 0
        # Where all IoUs are 0, the first is the largest: that of the first box that takes part.
        matched = torch.where(best > 0, matched, overlaps_an_anchor.int().argmax())
        match_labels = self._label_bands(best).masked_fill_(is_best_of_a_box, 1)
        return matched, match_labels.masked_fill_(~overlaps_an_anchor.any(), 0)

    def _pairs_at_once(self, anchors: Tensor) -> int:
        # The CPU is fastest with one ground-truth box at a time, whose row still is in the cache
        # when the next operation reads it; elsewhere every kernel launch costs.
        if self.pairs_at_once is not None:
            return self.pairs_at_once
        return 1 if anchors.device.type == "cpu" else GPU_PAIRS_AT_ONCE

    def _label_bands(self, iou: Tensor) -> Tensor:
        labels = torch.full_like(iou, self.labels[0], dtype=torch.int8)
        for threshold, label in zip(self.thresholds, self.labels[1:], strict=True):
            labels.masked_fill_(iou >= threshold, label)
        return labels


class _Overlaps:
    """IoUs of a few boxes with all anchors, in memory that is allocated once.

    The result is overwritten by the next call. It is 0 or less where there is no overlap.
    """

    def __init__(self, anchors: Tensor, boxes_at_once: int):
        self.x1, self.y1, self.x2, self.y2 = anchors.t().contiguous()  # rows are faster to read
        # Overlap with a box turned inside out is 0 whatever its area; never divide 0 by 0 for it.
        self.area = (self.x2 - self.x1).clamp_(min=0) * (self.y2 - self.y1).clamp_(min=0)
        self.scratch = anchors.new_empty(3, boxes_at_once, len(anchors))

    def __call__(self, boxes: Tensor) -> Tensor:
        """(G, 4) to (G, R)."""
        x1, y1, x2, y2 = boxes[:, :, None].unbind(1)
        width, height, other = self.scratch[:, : len(boxes)]
        torch.minimum(x2, self.x2, out=width)
        width.sub_(torch.maximum(x1, self.x1, out=other)).clamp_(min=0)
        torch.minimum(y2, self.y2, out=height)
        height.sub_(torch.maximum(y1, self.y1, out=other))  # below 0 gives 0 or less in the end
        area = (x2 - x1) * (y2 - y1)
        area = torch.where(area > 0, area, 1)  # again only for the sake of 0 / 0
        intersection = width.mul_(height)
        # This order of operations decides the last bits, and with them which IoUs are equal.
        union = torch.add(area, self.area, out=other).sub_(intersection)
        return intersection.div_(union)


def _max_over_boxes(iou: Tensor) -> tuple[Tensor, Tensor]:
    """Largest IoU of each anchor (R,) and the first row that has it, of (G, R)."""
    if len(iou) == 1:
        return iou[0], iou.new_zeros((), dtype=torch.int64)
    largest, row = iou.max(dim=0)
    return largest, row


def _has_row_maximum(iou: Tensor, row_maximum: Tensor) -> Tensor:
    """(R,) bool: anchors that have one of the row maxima (G,) that are above 0, of (G, R)."""
    hits = iou == row_maximum.masked_fill(row_maximum == 0, torch.inf)[:, None]
    return hits[0] if len(hits) == 1 else hits.any(dim=0)
