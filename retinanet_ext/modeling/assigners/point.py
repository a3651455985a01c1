"""Assignment of locations, not anchors: FCOS (arXiv 1904.01355, Sec. 3.1 and 3.2).

Letters: L levels, R locations over all levels, M ground-truth boxes of an image.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.structures import Boxes
from torch import Tensor

from ...boxes import in_chunks
from ...errors import InputError
from ...registry import ASSIGNER_REGISTRY, node_of
from .iou import ImageAssigner


@ASSIGNER_REGISTRY.register()
class PointAssigner(ImageAssigner):
    """A location has to predict the smallest object that it lies in, if it is one of its level's.

    A location is the centre of an anchor, and each anchor is a square of the size of its level's
    stride: OCTAVE_BASE_SIZES are the strides, with one scale, one ratio and OFFSET 0.5. It may
    predict an object

    - that it lies strictly in,
    - whose centre is nearer than ``center_sampling_radius`` strides along both axes,
    - whose farthest edge is ``regression_range`` strides away: farther than the first and nearer
      than the second number; the finest level takes all that are nearer, the coarsest all that are
      farther.

    Of several objects it takes the smallest, of equal ones the first. All other locations are
    background, none is ignored. Equal to Detectron2's FCOS, which rounds areas to 8 square pixels.
    """

    config_keys = ("CENTER_SAMPLING_RADIUS", "REGRESSION_RANGE", "MULTI_LABEL_IOU_THRESH")

    @configurable
    def __init__(
        self,
        *,
        num_classes: int,
        center_sampling_radius: float = 1.5,
        regression_range: Sequence[float] = (4.0, 8.0),
        multi_label_iou_thresh: float = 1.0,
    ) -> None:
        """
        Args:
            num_classes: K; background gets this label.
            center_sampling_radius: in strides, above 0; 0 is anywhere in the object.
            regression_range: two rising numbers of strides, see the class.
            multi_label_iou_thresh: see :class:`ImageAssigner`.

        Raises:
            ValueError: if an argument is out of range.
        """
        super().__init__(num_classes, multi_label_iou_thresh)
        check_point_settings(center_sampling_radius, regression_range)
        self.radius = float(center_sampling_radius) or math.inf
        self.regression_range = tuple(float(x) for x in regression_range)

    @classmethod
    def from_config(cls, cfg: CfgNode, node: CfgNode | None = None) -> dict[str, Any]:
        node = node_of(cfg, node)
        return {
            "num_classes": node.NUM_CLASSES,
            "center_sampling_radius": node.CENTER_SAMPLING_RADIUS,
            "regression_range": node.REGRESSION_RANGE,
            "multi_label_iou_thresh": node.MULTI_LABEL_IOU_THRESH,
        }

    def _prepare(self, anchors: list[Boxes]) -> Tensor:
        """Rows (R, 5): x, y, stride, and between what distances the farthest edge lies."""
        levels = []
        for level, boxes in enumerate(x.tensor for x in anchors):
            sizes = boxes[:, 2:] - boxes[:, :2]
            if len(boxes) and not torch.allclose(sizes, sizes[0, 0].expand_as(sizes), rtol=1e-3):
                raise InputError(
                    "MODEL.RETINANET.ASSIGNER PointAssigner takes one square anchor per location, "
                    f"but level {level} has others; set MODEL.ANCHOR_GENERATOR.OCTAVE_BASE_SIZES "
                    "to the strides (8, 16, ...), SCALES_PER_OCTAVE to 1, ASPECT_RATIOS to [[1.0]] "
                    "and OFFSET to 0.5"
                )
            centres, size = (boxes[:, :2] + boxes[:, 2:]) / 2, sizes[:, :1]
            low, high = (factor * size for factor in self.regression_range)
            low = torch.zeros_like(low) if level == 0 else low
            high = torch.full_like(high, math.inf) if level == len(anchors) - 1 else high
            levels.append(torch.cat([centres, size, low, high], dim=1))
        return torch.cat(levels)

    def _match(self, prepared: Tensor, gt_boxes: Tensor) -> tuple[Tensor, Tensor]:
        areas = (gt_boxes[:, 2:] - gt_boxes[:, :2]).prod(dim=1)
        best = torch.full_like(prepared[:, 0], math.inf)
        matched = torch.zeros_like(best, dtype=torch.int64)
        for part in in_chunks(len(gt_boxes), len(prepared)):
            mine = self._may_predict(prepared, gt_boxes[part])
            smallest = areas[part, None].where(mine, areas.new_tensor(math.inf)).min(dim=0)
            smaller = smallest.values < best
            best = smallest.values.where(smaller, best)
            matched = (smallest.indices + part.start).where(smaller, matched)
        return matched, best.isfinite().to(torch.int8)

    def _may_predict(self, locations: Tensor, gt_boxes: Tensor) -> Tensor:
        """(M, R) bool."""
        points, (stride, low, high) = locations[:, :2], locations[:, 2:].T
        to_corners = torch.cat([points - gt_boxes[:, None, :2], gt_boxes[:, None, 2:] - points], 2)
        centres = (gt_boxes[:, :2] + gt_boxes[:, 2:]) / 2
        off_centre = (points - centres[:, None]).abs().amax(dim=2)
        farthest = to_corners.amax(dim=2)
        return (
            (to_corners.amin(dim=2) > 0)
            & (off_centre < self.radius * stride)
            & (farthest > low)
            & (farthest < high)
        )


def check_point_settings(radius: float, regression_range: Sequence[float]) -> None:
    """Raise InputError, with the config key, on settings that :class:`PointAssigner` cannot use."""
    if not 0 <= radius < math.inf:
        raise InputError(
            f"MODEL.RETINANET.CENTER_SAMPLING_RADIUS is {radius}; set it to a number of strides, "
            "1.5 in FCOS, or to 0 for anywhere in the object"
        )
    if len(regression_range) != 2 or not 0 < regression_range[0] < regression_range[1] < math.inf:
        raise InputError(
            f"MODEL.RETINANET.REGRESSION_RANGE is {list(regression_range)}; set it to two rising "
            "numbers of strides, [4.0, 8.0] in FCOS"
        )
