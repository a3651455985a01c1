"""Assigners: which ground-truth box, if any, each anchor has to predict.

Letters: N images, R anchors over all levels, M ground-truth boxes of an image, K classes.
"""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

import torch
from detectron2.config import CfgNode, configurable
from detectron2.structures import Boxes, Instances
from torch import Tensor

from ...errors import InputError
from ...registry import ASSIGNER_REGISTRY, node_of
from ...structures import IGNORE_LABEL, DenseTargets
from .debug import AssignmentDebug, describe_assignment
from .matching import ChunkedMatcher
from .multi_label import check_multi_label_thresh, extra_classes


class ImageAssigner(ABC):
    """An assigner that looks at one image after the other; a subclass says who matches whom."""

    config_keys: ClassVar[tuple[str, ...]] = ("MULTI_LABEL_IOU_THRESH",)

    def __init__(self, num_classes: int, multi_label_iou_thresh: float = 1.0):
        """
        Args:
            num_classes: K; background gets this label.
            multi_label_iou_thresh: a positive anchor also gets the classes of the boxes whose IoU
                with its own box is above this, in (0, 1]; 1 is off.

        Raises:
            ValueError: if an argument is out of range.
        """
        check_multi_label_thresh(multi_label_iou_thresh)
        self.num_classes = num_classes
        self.multi_label_iou_thresh = multi_label_iou_thresh

    @torch.no_grad()
    def __call__(self, anchors: list[Boxes], gt_instances: list[Instances]) -> DenseTargets:
        """Label the anchors of N images.

        Args:
            anchors: L Boxes (Hi*Wi*A, 4), the same for all images.
            gt_instances: N Instances with ``gt_boxes`` and ``gt_classes`` in [0, K).
        """
        prepared = self._prepare(anchors)
        return self._assign(anchors, gt_instances, [prepared] * len(gt_instances))

    def _assign(
        self, anchors: list[Boxes], gt_instances: list[Instances], prepared: Sequence[Any]
    ) -> DenseTargets:
        """As :meth:`__call__`, with what :meth:`_match` gets for each of the N images."""
        all_anchors = Boxes.cat(anchors).tensor
        labels, boxes, matched, extra = [], [], [], []
        for image, gt in enumerate(gt_instances):
            of_image = self._assign_image(all_anchors, prepared[image], gt)
            labels.append(of_image[0])
            boxes.append(of_image[1])
            matched.append(of_image[2])
            extra.append(torch.nn.functional.pad(of_image[3], (1, 0), value=image))
        return DenseTargets(
            torch.stack(labels),
            torch.stack(boxes),
            self.num_classes,
            extra=torch.cat(extra) if self.multi_label_iou_thresh < 1 else None,
            matched_idxs=torch.stack(matched),
        )

    def debug_targets(
        self, anchors: list[Boxes], gt_instances: list[Instances]
    ) -> list[AssignmentDebug]:
        """What the assignment of each of N images looks like; for drawings and reports.

        Args:
            anchors: L Boxes (Hi*Wi*A, 4).
            gt_instances: N Instances with ``gt_boxes`` and ``gt_classes``.
        """
        return describe_assignment(self(anchors, gt_instances), anchors, gt_instances)

    def _prepare(self, anchors: list[Boxes]) -> Any:
        """What :meth:`_match` needs of the anchors; computed once for all images."""
        return Boxes.cat(anchors).tensor

    @abstractmethod
    def _match(self, prepared: Any, gt_boxes: Tensor) -> tuple[Tensor, Tensor]:
        """Match the anchors of one image with M >= 1 boxes (M, 4).

        Returns:
            (R,) int64 matched boxes in [0, M), and (R,) labels -1 ignored, 0 background, 1 object.
        """

    def _assign_image(
        self, anchors: Tensor, prepared: Any, gt: Instances
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Labels (R,), boxes (R, 4), their indices (R,) and rows (anchor, further class)."""
        nothing = torch.empty(0, 2, dtype=torch.int64, device=anchors.device)
        if len(gt) == 0:
            background = torch.full((len(anchors),), self.num_classes, device=anchors.device)
            nobody = torch.full_like(background, -1)
            return background, torch.zeros_like(anchors), nobody, nothing
        gt_boxes = gt.gt_boxes.tensor
        matched_indices, match_labels = self._match(prepared, gt_boxes)
        labels = gt.gt_classes.to(torch.int64).index_select(0, matched_indices)
        labels.masked_fill_(match_labels == 0, self.num_classes)
        labels.masked_fill_(match_labels == -1, IGNORE_LABEL)
        extra = nothing
        if self.multi_label_iou_thresh < 1:
            positive = match_labels == 1
            extra = extra_classes(matched_indices, positive, gt, self.multi_label_iou_thresh)
        boxes = gt_boxes.index_select(0, matched_indices)
        return labels, boxes, matched_indices.masked_fill(match_labels != 1, -1), extra


@ASSIGNER_REGISTRY.register()
class IoUAssigner(ImageAssigner):
    """Assign by IoU thresholds (Sec. 4, "Anchors"): object from 0.5, background below 0.4.

    Anchors in between are ignored. With ``allow_low_quality_matches`` (Detectron2's rule, not the
    paper's) the best anchors of a ground-truth box are positive whatever their IoU, as long as they
    overlap it at all: a box that overlaps no anchor (outside of the image, or without area) is
    nobody's target, while Detectron2 would make every anchor that misses it a positive.
    """

    config_keys = (
        "IOU_THRESHOLDS",
        "IOU_LABELS",
        "ALLOW_LOW_QUALITY_MATCHES",
        "MULTI_LABEL_IOU_THRESH",
    )

    @configurable
    def __init__(
        self,
        *,
        num_classes: int,
        iou_thresholds: Sequence[float] = (0.4, 0.5),
        iou_labels: Sequence[int] = (0, -1, 1),
        allow_low_quality_matches: bool = True,
        multi_label_iou_thresh: float = 1.0,
    ):
        """
        Args:
            num_classes: K; background gets this label.
            iou_thresholds: rising, in (0, 1).
            iou_labels: what an anchor is in each band: 0 background, -1 ignored, 1 object; one more
                than there are thresholds.
            allow_low_quality_matches: see the class.
            multi_label_iou_thresh: see :class:`ImageAssigner`.

        Raises:
            ValueError: if thresholds and labels do not fit together.
        """
        super().__init__(num_classes, multi_label_iou_thresh)
        check_iou_bands(iou_thresholds, iou_labels)
        self.matcher = ChunkedMatcher(iou_thresholds, iou_labels, allow_low_quality_matches)

    @classmethod
    def from_config(cls, cfg: CfgNode, node: CfgNode | None = None) -> dict[str, Any]:
        node = node_of(cfg, node)
        return {
            "num_classes": node.NUM_CLASSES,
            "iou_thresholds": node.IOU_THRESHOLDS,
            "iou_labels": node.IOU_LABELS,
            "allow_low_quality_matches": node.ALLOW_LOW_QUALITY_MATCHES,
            "multi_label_iou_thresh": node.MULTI_LABEL_IOU_THRESH,
        }

    def debug_targets(
        self, anchors: list[Boxes], gt_instances: list[Instances]
    ) -> list[AssignmentDebug]:
        """As :meth:`ImageAssigner.debug_targets`, with ``only_low_quality``.

        Args:
            anchors: L Boxes (Hi*Wi*A, 4).
            gt_instances: N Instances with ``gt_boxes`` and ``gt_classes``.
        """
        return [self._find_low_quality(x) for x in super().debug_targets(anchors, gt_instances)]

    def _find_low_quality(self, image: AssignmentDebug) -> AssignmentDebug:
        iou = image.pos_iou
        band = torch.bucketize(iou, iou.new_tensor(self.matcher.thresholds), right=True)
        is_object = torch.tensor(self.matcher.labels, device=iou.device)[band] == 1
        by_itself = torch.zeros_like(image.is_covered)
        by_itself[image.pos_gt[is_object]] = True
        return replace(image, only_low_quality=image.is_covered & ~by_itself)

    def _match(self, prepared: Tensor, gt_boxes: Tensor) -> tuple[Tensor, Tensor]:
        return self.matcher(gt_boxes, prepared)


def check_iou_bands(thresholds: Sequence[float], labels: Sequence[int]) -> None:
    """Raise InputError unless the thresholds rise within (0, 1) and there is a label per band."""
    rising = all(a <= b for a, b in itertools.pairwise(thresholds))
    if not thresholds or not rising or not all(0 < t < 1 for t in thresholds):
        raise InputError(
            "MODEL.RETINANET.IOU_THRESHOLDS must rise within (0, 1), for example [0.4, 0.5], "
            f"got {list(thresholds)}"
        )
    if len(labels) != len(thresholds) + 1 or any(label not in (-1, 0, 1) for label in labels):
        raise InputError(
            f"MODEL.RETINANET.IOU_LABELS must hold {len(thresholds) + 1} values out of 0 "
            f"(background), -1 (ignored) and 1 (object) for thresholds {list(thresholds)}, "
            f"got {list(labels)}"
        )
