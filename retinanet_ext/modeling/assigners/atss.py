"""Adaptive training sample selection (ATSS, arXiv 1912.02424, Algorithm 1).

Letters: L levels, A anchors per location, R anchors over all levels, M ground-truth boxes of an
image, G of them at a time, C candidates of each.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.structures import Boxes, Instances
from torch import Tensor

from ...boxes import in_chunks
from ...errors import InputError
from ...registry import ASSIGNER_REGISTRY, node_of
from .debug import AssignmentDebug
from .iou import ImageAssigner

# Centres are whole numbers of 1/16 pixel: that of a location is the same for all of its anchors,
# and distances are exact, so that rounding never decides which of two equally near ones is taken.
_UNITS_PER_PIXEL = 16
# Distances of more than 65,536 pixels along an axis count as that: with up to 2**22 locations of a
# level, squared distance and index together fit into 63 bits.
_FAR = 2**20
_SAME_CENTRE = 0.01  # pixels; the float32 corners of anchors give their centre to about 0.0005


def check_atss_topk(topk: int) -> None:
    """Raise ValueError unless ``topk`` is at least 1."""
    if topk < 1:
        raise InputError(
            f"MODEL.RETINANET.ATSS_TOPK is {topk}; set it to the number of candidate locations per "
            "level and object, 9 in the paper"
        )


@ASSIGNER_REGISTRY.register()
class ATSSAssigner(ImageAssigner):
    """Choose positives by the statistics of each object (arXiv 1912.02424, Sec. 4.1).

    Candidates of a ground-truth box are, on each level, the anchors of the ``topk`` locations whose
    centres are nearest to its centre. Positive are those candidates whose IoU is at least the mean
    plus the standard deviation (that of a sample, n - 1) of all its candidates' IoUs, and whose
    centre lies strictly inside of the box. An anchor that several boxes want goes to the one of
    the highest IoU, the first one of equals. All other anchors are background, none is ignored.

    ``topk`` counts locations: with A anchors per location a box has topk * A candidates per level,
    as in the authors' code (others take topk anchors whatever A is, which for 9 of 9 is a single
    location). Anchors are of one location where they follow each other and share their centre, the
    same number of them all over a level; otherwise each is a location of its own. Of locations
    equally near, to 1/16 pixel, the first ones are taken.

    Memory is O(R + M * C). The numbers of anchors per location are read back from the device, once
    per batch.
    """

    config_keys = ("ATSS_TOPK", "MULTI_LABEL_IOU_THRESH")

    @configurable
    def __init__(
        self, *, num_classes: int, topk: int = 9, multi_label_iou_thresh: float = 1.0
    ) -> None:
        """
        Args:
            num_classes: K; background gets this label.
            topk: candidate locations per level, at least 1; the paper's k.
            multi_label_iou_thresh: see :class:`ImageAssigner`.

        Raises:
            ValueError: if an argument is out of range.
        """
        super().__init__(num_classes, multi_label_iou_thresh)
        check_atss_topk(topk)
        self.topk = topk

    @classmethod
    def from_config(cls, cfg: CfgNode, node: CfgNode | None = None) -> dict[str, Any]:
        node = node_of(cfg, node)
        return {
            "num_classes": node.NUM_CLASSES,
            "topk": node.ATSS_TOPK,
            "multi_label_iou_thresh": node.MULTI_LABEL_IOU_THRESH,
        }

    @torch.no_grad()
    def debug_targets(
        self, anchors: list[Boxes], gt_instances: list[Instances]
    ) -> list[AssignmentDebug]:
        """As :meth:`ImageAssigner.debug_targets`, with ``iou_thresholds``; NaN without candidates.

        Args:
            anchors: L Boxes (Hi*Wi*A, 4).
            gt_instances: N Instances with ``gt_boxes`` and ``gt_classes``.
        """
        described = super().debug_targets(anchors, gt_instances)
        levels = self._prepare(anchors)
        thresholds = [self._select(levels, gt.gt_boxes.tensor).thresholds for gt in gt_instances]
        pairs = zip(described, thresholds, strict=True)
        return [replace(image, iou_thresholds=of_boxes) for image, of_boxes in pairs]

    def _prepare(self, anchors: list[Boxes]) -> _Anchors:
        return _Anchors.of_levels([x.tensor for x in anchors])

    def _match(self, prepared: _Anchors, gt_boxes: Tensor) -> tuple[Tensor, Tensor]:
        chosen = self._select(prepared, gt_boxes)
        num_boxes, num_anchors = len(gt_boxes), len(prepared.boxes)
        anchor, positive = chosen.anchors.flatten(), chosen.positive.flatten()
        iou = chosen.iou.flatten().masked_fill(~positive, -1)
        # Largest and smallest are the same in whatever order a device finds them.
        best = iou.new_full((num_anchors,), -1).scatter_reduce_(0, anchor, iou, "amax")
        box = torch.arange(num_boxes, device=iou.device).repeat_interleave(chosen.iou.shape[1])
        box.masked_fill_(~positive | (iou < best[anchor]), num_boxes)
        matched = torch.full_like(best, num_boxes, dtype=torch.int64)
        matched.scatter_reduce_(0, anchor, box, "amin")
        is_object = matched < num_boxes
        return matched.masked_fill_(~is_object, 0), is_object.to(torch.int8)

    def _select(self, anchors: _Anchors, gt_boxes: Tensor) -> _Candidates:
        """Candidates of M boxes, a few boxes at a time."""
        most = max((len(x) for x in anchors.locations), default=0)
        # At least one chunk, so that no boxes give tensors of the right kind too.
        chunks = in_chunks(max(1, len(gt_boxes)), most)
        chosen = [self._select_chunk(anchors, gt_boxes[chunk]) for chunk in chunks]
        return _Candidates(
            torch.cat([x.anchors for x in chosen]),
            torch.cat([x.iou for x in chosen]),
            torch.cat([x.positive for x in chosen]),
            torch.cat([x.thresholds for x in chosen]),
        )

    def _select_chunk(self, anchors: _Anchors, gt_boxes: Tensor) -> _Candidates:
        boxes = gt_boxes.double()
        index = anchors.nearest(boxes, self.topk)  # (G, C)
        # Rounded to float32, equal IoUs have exactly their own value as mean in float64, and stay
        # at or above the threshold.
        iou = _iou(anchors.boxes[index].double(), boxes[:, None]).float()
        values = iou.double()
        mean = values.mean(dim=1)
        squares = (values - mean[:, None]).square().sum(dim=1)
        thresholds = mean + (squares / max(1, iou.shape[1] - 1)).sqrt()
        centres = anchors.centres[index].double() / _UNITS_PER_PIXEL  # (G, C, 2)
        inside = (centres > boxes[:, None, :2]) & (centres < boxes[:, None, 2:])
        positive = (values >= thresholds[:, None]) & inside.all(dim=2)
        return _Candidates(index, iou, positive, thresholds)


@dataclass(frozen=True)
class _Candidates:
    """Per ground-truth box: anchor indices, IoUs and choice (M, C); thresholds (M,) float64."""

    anchors: Tensor
    iou: Tensor
    positive: Tensor
    thresholds: Tensor


@dataclass(frozen=True)
class _Anchors:
    """Anchors (R, 4), their centres (R, 2) int64 in units; per level, those of its locations."""

    boxes: Tensor
    centres: Tensor
    locations: list[Tensor]
    per_location: list[int]

    @classmethod
    def of_levels(cls, levels: list[Tensor]) -> _Anchors:
        centres = [(x[:, :2].double() + x[:, 2:].double()) / 2 for x in levels]
        per_location = _anchors_per_location(centres)
        units = [_to_units(x) for x in centres]
        locations = [x[::each] for x, each in zip(units, per_location, strict=True)]
        return cls(torch.cat(levels), torch.cat(units), locations, per_location)

    def nearest(self, boxes: Tensor, topk: int) -> Tensor:
        """(G, C) int64: anchors of the ``topk`` locations of each level nearest to (G, 4) boxes."""
        centres = _to_units((boxes[:, :2] + boxes[:, 2:]) / 2)
        found, start = [], 0
        for locations, each in zip(self.locations, self.per_location, strict=True):
            count = len(locations)
            x, y = ((centres[:, i, None] - locations[:, i]).abs_() for i in (0, 1))
            squared = x.clamp_(max=_FAR).square_() + y.clamp_(max=_FAR).square_()
            # Distance first, then index: no two are equal, so that every device finds the same.
            key = squared.mul_(count).add_(torch.arange(count, device=boxes.device))
            location = key.topk(min(topk, count), largest=False).values % max(count, 1)
            anchor = location[..., None] * each + torch.arange(each, device=boxes.device)
            found.append(anchor.flatten(1) + start)
            start += count * each
        return torch.cat(found, dim=1)


def _to_units(centres: Tensor) -> Tensor:
    """Pixels to whole units; far outside of any image, to something just as far."""
    return (centres * _UNITS_PER_PIXEL).round().clamp(-(2**40), 2**40).to(torch.int64)


def _anchors_per_location(levels: list[Tensor]) -> list[int]:
    """A of each level, from its anchors' centres (Hi*Wi*A, 2); 1 where they do not come in groups.

    Reads from the device once.
    """
    found = []
    for centres in levels:
        count = len(centres)
        moves = (centres[1:] - centres[:-1]).abs().amax(dim=1) > _SAME_CENTRE
        begins = torch.cat([moves.new_ones(min(count, 1)), moves])
        position = torch.arange(count, device=centres.device)
        # The second location begins where the first one's anchors end.
        each = position.masked_fill(~begins | (position == 0), count).amin() if count else 1
        each = torch.as_tensor(each, device=centres.device)
        in_groups = (begins == (position % each == 0)).all() & (count % each == 0)
        found.append(torch.where(in_groups, each, 1))
    return [int(x) for x in torch.stack(found).tolist()] if found else []


def _iou(a: Tensor, b: Tensor) -> Tensor:
    """IoU (...) of boxes (..., 4); 0 where either has no area."""
    size = torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])
    intersection = size.clamp_(min=0).prod(dim=-1)
    areas = [(x[..., 2:] - x[..., :2]).clamp(min=0).prod(dim=-1) for x in (a, b)]
    union = areas[0] + areas[1] - intersection
    return intersection / union.masked_fill(union <= 0, 1)
