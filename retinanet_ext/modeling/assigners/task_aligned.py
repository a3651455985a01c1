"""Assignment by what is predicted: TOOD's task alignment learning (arXiv 2108.07755, Sec. 3.2).

Letters: N images, R anchors over all levels, M ground-truth boxes of an image, k anchors of each.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.structures import Boxes, Instances, pairwise_iou
from detectron2.structures.boxes import matched_pairwise_iou
from torch import Tensor

from ...boxes import in_chunks
from ...errors import InputError
from ...protocols import Predictions
from ...registry import ASSIGNER_REGISTRY, node_of
from ...structures import DenseTargets
from .iou import ImageAssigner


@ASSIGNER_REGISTRY.register()
class TaskAlignedAssigner(ImageAssigner):
    """Positive are the anchors that already predict an object best, in class and box together.

    The alignment of an anchor with an object is ``s^alpha * u^beta``: s is the score that it gives
    the object's class, u the IoU of its predicted box with the object. Of the anchors whose centre
    lies strictly in an object, the ``topk`` of the largest alignment above 0 are positive. One that
    several objects want goes to that of the largest u, the first of equals. All others are
    background, none is ignored. An object without such an anchor, as one so small that it lies
    between the centres, is nobody's target.

    ``quality`` of the targets is TOOD's classification target: the alignment of a positive anchor
    over the largest one of its object, times the largest u of the object. Put QualityFocalLoss or
    VarifocalLoss to it (Eq. 4 of the paper is the first, with its beta as gamma); a loss without
    ``needs_quality`` learns a score of 1 at these anchors. The box loss counts each positive once,
    where the paper weighs it by that target.
    """

    config_keys = (
        "TASK_ALIGNED_TOPK",
        "TASK_ALIGNED_ALPHA",
        "TASK_ALIGNED_BETA",
        "MULTI_LABEL_IOU_THRESH",
    )
    needs_predictions = True

    @configurable
    def __init__(
        self,
        *,
        num_classes: int,
        topk: int = 13,
        alpha: float = 1.0,
        beta: float = 6.0,
        multi_label_iou_thresh: float = 1.0,
    ):
        """
        Args:
            num_classes: K; background gets this label.
            topk: positive anchors per object, at least 1.
            alpha, beta: exponents of score and IoU, at least 0.
            multi_label_iou_thresh: see :class:`ImageAssigner`.

        Raises:
            ValueError: if an argument is out of range.
        """
        super().__init__(num_classes, multi_label_iou_thresh)
        if topk < 1:
            raise InputError(
                f"MODEL.RETINANET.TASK_ALIGNED_TOPK is {topk}; set it to the number of positive "
                "anchors per object, 13 in TOOD"
            )
        for name, value, usual in (("ALPHA", alpha, 1), ("BETA", beta, 6)):
            if not 0 <= value < math.inf:
                raise InputError(
                    f"MODEL.RETINANET.TASK_ALIGNED_{name} is {value}; set it to an exponent of at "
                    f"least 0, {usual} in TOOD"
                )
        self.topk = topk
        self.alpha = alpha
        self.beta = beta

    @classmethod
    def from_config(cls, cfg: CfgNode, node: CfgNode | None = None) -> dict[str, Any]:
        node = node_of(cfg, node)
        return {
            "num_classes": node.NUM_CLASSES,
            "topk": node.TASK_ALIGNED_TOPK,
            "alpha": node.TASK_ALIGNED_ALPHA,
            "beta": node.TASK_ALIGNED_BETA,
            "multi_label_iou_thresh": node.MULTI_LABEL_IOU_THRESH,
        }

    @torch.no_grad()
    def __call__(
        self,
        anchors: list[Boxes],
        gt_instances: list[Instances],
        predictions: Predictions | None = None,
    ) -> DenseTargets:
        """Label the anchors of N images; arguments of :class:`ImageAssigner`.

        Args:
            anchors: L Boxes (Hi*Wi*A, 4).
            gt_instances: N Instances.
            predictions: of the head, on the same anchors.

        Raises:
            InputError: there are none.
        """
        if predictions is None:
            raise InputError(
                "MODEL.RETINANET.ASSIGNER is 'TaskAlignedAssigner', which goes by what the model "
                "predicts, and here is none; choose ATSSAssigner to look at anchors without a model"
            )
        centres = self._prepare(anchors)
        images = [
            _Image(centres, predictions.boxes(i), predictions.scores(i, gt.gt_classes))
            for i, gt in enumerate(gt_instances)
        ]
        targets = self._assign(anchors, gt_instances, images)
        assert targets.matched_idxs is not None
        quality = [
            self._quality(images[i], gt.gt_boxes.tensor, targets.matched_idxs[i])
            for i, gt in enumerate(gt_instances)
        ]
        return replace(targets, quality=torch.stack(quality))

    def _prepare(self, anchors: list[Boxes]) -> Tensor:
        return Boxes.cat(anchors).get_centers()

    def _match(self, prepared: _Image, gt_boxes: Tensor) -> tuple[Tensor, Tensor]:
        best = torch.full_like(prepared.centres[:, 0], -1)
        matched = torch.zeros_like(best, dtype=torch.int64)
        for part in in_chunks(len(gt_boxes), len(best)):
            iou, wanted = self._wanted(prepared, gt_boxes[part], part)
            largest = iou.masked_fill(~wanted, -1).max(dim=0)
            better = largest.values > best
            best = largest.values.where(better, best)
            matched = (largest.indices + part.start).where(better, matched)
        return matched, (best >= 0).to(torch.int8)

    def _wanted(self, image: _Image, gt_boxes: Tensor, part: slice) -> tuple[Tensor, Tensor]:
        """IoUs of the predicted boxes with some objects, and who wants which anchor, (M, R) each"""
        iou = _iou(gt_boxes, image.boxes)
        off = torch.cat(
            [image.centres - gt_boxes[:, None, :2], gt_boxes[:, None, 2:] - image.centres], dim=2
        )
        alignment = self._alignment(image.scores[:, part].T, iou)
        alignment = alignment.masked_fill(off.amin(dim=2) <= 0, 0)
        top = alignment.topk(min(self.topk, alignment.shape[1]), dim=1)
        wanted = torch.zeros_like(alignment, dtype=torch.bool)
        return iou, wanted.scatter_(1, top.indices, top.values > 0)

    def _alignment(self, scores: Tensor, iou: Tensor) -> Tensor:
        return scores**self.alpha * iou**self.beta

    def _quality(self, image: _Image, gt_boxes: Tensor, matched: Tensor) -> Tensor:
        """(R,) of :attr:`DenseTargets.quality`, from the box in [0, M) of each anchor, or -1."""
        quality = torch.zeros_like(image.centres[:, 0])
        positive = (matched >= 0).nonzero().squeeze(1)
        if len(positive) == 0:
            return quality
        of = matched[positive]
        iou = matched_pairwise_iou(Boxes(image.boxes[positive]), Boxes(gt_boxes[of])).clamp(0, 1)
        alignment = self._alignment(image.scores[positive, of], iou)
        nothing = alignment.new_zeros(len(gt_boxes))
        largest = nothing.scatter_reduce(0, of, alignment, "amax")
        largest_iou = nothing.scatter_reduce(0, of, iou, "amax")
        quality[positive] = (alignment / largest[of] * largest_iou[of]).to(quality.dtype)
        return quality


@dataclass(frozen=True)
class _Image:
    """Centres of anchors (R, 2), predicted boxes (R, 4), scores (R, M) of the objects' classes."""

    centres: Tensor
    boxes: Tensor
    scores: Tensor


def _iou(gt_boxes: Tensor, boxes: Tensor) -> Tensor:
    """(M, R); 0 where a predicted box is none."""
    return pairwise_iou(Boxes(gt_boxes), Boxes(boxes)).nan_to_num(nan=0.0).clamp(0, 1)
