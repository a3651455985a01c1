"""Decoding whose shapes follow from those of its input, and from no value in it.

What :class:`~retinanet_ext.modeling.postprocess.decode.DenseDecoder` does with as many candidates
as there are, this does with a fixed number per level, of which some stand for nothing. So a graph
of it follows any picture.

Letters: N images, L levels, A anchors per location, K classes, Hi x Wi locations of level i, k
candidates per level, T = L*k candidates, D detections.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from detectron2.modeling.box_regression import Box2BoxTransformLinear
from torch import Tensor, nn

from ...modeling.postprocess.decode import DenseDecoder
from .nms import Nms

__all__ = ["StaticDecoder", "best_detections", "kept_scores"]


class StaticDecoder(nn.Module):
    """Candidates, and detections, of the outputs of a head."""

    delta_weights: Tensor

    def __init__(
        self,
        decoder: DenseDecoder,
        cell_anchors: list[Tensor],
        strides: list[int],
        offset: float,
    ):
        """
        Args:
            decoder: whose settings are taken.
            cell_anchors: (A, 4) XYXY of each level, around (0, 0).
            strides: of the levels, in pixels.
            offset: of the first anchor's centre, in strides.
        """
        super().__init__()
        transform: Any = decoder.box2box_transform  # one of the two that are not refused
        self.by_edges = isinstance(transform, Box2BoxTransformLinear)
        self.by_score = decoder.candidates_by == "score"
        self.num_classes = decoder.num_classes
        self.score_thresh, self.nms_thresh = decoder.score_thresh, decoder.nms_thresh
        self.topk, self.most = decoder.topk_candidates, decoder.max_detections
        self.per_class_boxes = not decoder.cls_agnostic_bbox_reg
        self.per_class_nms = decoder.nms_kind == "per_class"
        self.scale_clamp = 0.0 if self.by_edges else transform.scale_clamp
        self.strides, self.offset = strides, offset
        weights = (1.0,) * 4 if self.by_edges else transform.weights
        self.register_buffer("delta_weights", torch.tensor(weights))
        for i, cells in enumerate(cell_anchors):
            self.register_buffer(f"cells{i}", cells.detach().float().clone())

    def candidates(
        self, logits: list[Tensor], deltas: list[Tensor], quality: list[Tensor] | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Boxes (N, T, 4), scores (N, T) and classes (N, T) int64; a score of 0 is no candidate.

        Args:
            logits: L tensors (N, A*K, Hi, Wi).
            deltas: L tensors (N, A*4, Hi, Wi), or (N, A*K*4, Hi, Wi) with boxes of each class.
            quality: L tensors (N, A, Hi, Wi), where the head judges its boxes.
        """
        levels = []
        for i, (of_classes, of_boxes) in enumerate(zip(logits, deltas, strict=True)):
            of_quality = None if quality is None else quality[i].float()
            levels.append(self._level(i, of_classes.float(), of_boxes.float(), of_quality))
        boxes, scores, classes = (torch.cat(part, dim=1) for part in zip(*levels, strict=True))
        return boxes, scores, classes

    def detections(
        self, boxes: Tensor, scores: Tensor, classes: Tensor, nms: Nms
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Boxes (N, D, 4), scores (N, D), classes (N, D) int64 and counts (N,) int64.

        Best first; rows from the count on are 0, and their class is -1.

        Args:
            boxes, scores, classes: of :meth:`candidates`.
            nms: see there.
        """
        num_groups = self.num_classes if self.per_class_nms else 1
        scores = kept_scores(boxes, scores, classes, nms, num_groups, self.nms_thresh, self.most)
        return best_detections(boxes, scores, classes, self.most, len(self.strides) * self.topk)

    def _level(
        self, level: int, logits: Tensor, deltas: Tensor, quality: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Boxes (N, k, 4), scores (N, k) and classes (N, k) of one level."""
        cells: Tensor = getattr(self, f"cells{level}")
        num_classes, count = self.num_classes, self.topk
        images, _, height, width = logits.shape
        area = height * width
        whole = quality is not None and self.by_score
        if quality is not None and self.by_score:  # ranked by the score, as in FCOS
            of_classes = logits.reshape(images, len(cells), num_classes, area).sigmoid()
            of_boxes = quality.reshape(images, len(cells), 1, area).sigmoid()
            logits, quality = (of_classes * of_boxes).sqrt().reshape(logits.shape), None
        # The best k pairs of anchor and class are among the k anchors of the best best classes.
        per_anchor = logits.reshape(images, len(cells), num_classes, area)
        best = per_anchor.amax(dim=2).reshape(images, -1)  # in the order (A, H, W)
        # A small level has fewer than k anchors.
        nothing = best.new_full((1, count), -math.inf).expand(images, count)
        value, anchors = torch.cat([best, nothing], dim=1).topk(count, dim=1)
        anchors = anchors.clamp(max=len(cells) * area - 1)
        anchor, location = _divmod(anchors, area)
        classes = torch.arange(num_classes, device=logits.device)
        channels = (anchor * num_classes).unsqueeze(2) + classes  # (N, k, K)
        pairs = _pick(logits, channels, location)
        pairs = torch.where(
            (value > -math.inf).unsqueeze(2), pairs, torch.full_like(pairs, -math.inf)
        )
        top, pair = pairs.reshape(images, -1).topk(count, dim=1)
        which, class_ = _divmod(pair, num_classes)
        anchor, location = anchor.gather(1, which), location.gather(1, which)
        regressor = anchor * num_classes + class_ if self.per_class_boxes else anchor
        channels = (regressor * 4).unsqueeze(2) + torch.arange(4, device=logits.device)
        boxes = self._boxes(
            _pick(deltas, channels, location), cells[anchor], location, width, level
        )
        scores = top if whole else top.sigmoid()
        passed = scores > self.score_thresh
        if quality is not None:
            judged = _pick(quality, anchor.unsqueeze(2), location).squeeze(2).sigmoid()
            scores = (scores * judged).sqrt()
        # A sum is finite where all are; ONNX knows no isfinite.
        size = boxes.abs().amax(dim=2)
        passed = passed & (size < math.inf)
        boxes = torch.where(passed.unsqueeze(2), boxes, torch.zeros_like(boxes))
        return boxes, torch.where(passed, scores, torch.zeros_like(scores)), class_

    def _boxes(
        self, deltas: Tensor, cells: Tensor, location: Tensor, width: int, level: int
    ) -> Tensor:
        """Boxes (N, k, 4): ``apply_deltas`` of the decoder's box coder, of these anchors."""
        row, column = _divmod(location, width)
        stride = self.strides[level]
        x, y = (column.float() + self.offset) * stride, (row.float() + self.offset) * stride
        anchors = torch.stack([x, y, x, y], dim=2) + cells
        sides = anchors[..., 2:] - anchors[..., :2]
        centres = anchors[..., :2] + 0.5 * sides
        if self.by_edges:
            before, after = deltas.clamp(min=0).split(2, dim=2)
            return torch.cat([centres - before * sides, centres + after * sides], dim=2)
        deltas = deltas / self.delta_weights
        centres = deltas[..., :2] * sides + centres
        sides = deltas[..., 2:].clamp(max=self.scale_clamp).exp() * sides
        return torch.cat([centres - 0.5 * sides, centres + 0.5 * sides], dim=2)


def kept_scores(
    boxes: Tensor,
    scores: Tensor,
    classes: Tensor,
    nms: Nms,
    num_groups: int,
    iou_thresh: float,
    most: int,
) -> Tensor:
    """Scores (N, T) after NMS: 0 for boxes that are suppressed.

    Args:
        boxes, scores, classes: candidates, see :meth:`StaticDecoder.candidates`.
        num_groups: K for NMS among boxes of one class, 1 for NMS among all.
        nms, iou_thresh, most: see :data:`.nms.Nms`.
    """
    groups = classes if num_groups > 1 else torch.zeros_like(classes)
    index = nms(boxes, scores, groups, num_groups, iou_thresh, most)
    flat = scores.reshape(-1)
    kept = torch.zeros_like(flat).scatter(0, index, torch.ones_like(index, dtype=flat.dtype))
    return scores * kept.reshape(scores.shape)


def best_detections(
    boxes: Tensor, scores: Tensor, classes: Tensor, most: int, num_candidates: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The D best boxes of each image, as of :meth:`StaticDecoder.detections`.

    Args:
        boxes, scores, classes: candidates; a score of 0 is none.
        most: D.
        num_candidates: T, as a number.
    """
    few = max(0, most - num_candidates)
    if few:  # fewer candidates than detections
        scores = F.pad(scores, (0, few))
    top, place = scores.topk(most, dim=1)
    place = place.clamp(max=num_candidates - 1)
    found = top > 0
    boxes = boxes.gather(1, place.unsqueeze(2).expand(-1, -1, 4))
    boxes = torch.where(found.unsqueeze(2), boxes, torch.zeros_like(boxes))
    classes = classes.gather(1, place)
    classes = torch.where(found, classes, torch.full_like(classes, -1))
    return boxes, top, classes, found.sum(dim=1)


def _pick(maps: Tensor, channels: Tensor, location: Tensor) -> Tensor:
    """Of maps (N, C, H, W) some channels (N, k, D) at locations (N, k) in H*W: (N, k, D)."""
    images, _, height, width = maps.shape
    index = channels * (height * width) + location.unsqueeze(2)
    return maps.reshape(images, -1).gather(1, index.reshape(images, -1)).reshape(index.shape)


def _divmod(x: Tensor, divisor: int) -> tuple[Tensor, Tensor]:
    """Quotient and remainder of x >= 0; the remainder of a size that is a symbol has no ONNX."""
    quotient = torch.div(x, divisor, rounding_mode="floor")
    return quotient, x - quotient * divisor
