"""YOLO's assignment: the cell that an object's centre lies in, and the anchor of the best shape.

Letters: L levels, Hi x Wi locations of level i, A anchors per location (levels may differ in it), R
anchors over all levels, M ground-truth boxes of an image.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from detectron2.config import CfgNode, configurable
from detectron2.structures import Boxes, pairwise_iou
from torch import Tensor

from retinanet_ext.modeling.assigners.iou import ImageAssigner, check_iou_bands
from retinanet_ext.registry import ASSIGNER_REGISTRY, node_of


class Grid(NamedTuple):
    """The locations of one level."""

    columns: Tensor  # (Wi - 1,) where one column ends and the next begins, px
    rows: Tensor  # (Hi - 1,) likewise
    shapes: Tensor  # (A, 2) width and height of the anchors, px
    start: int  # of its anchors among all R


@ASSIGNER_REGISTRY.register()
class GridAssigner(ImageAssigner):
    """Each object has one anchor, over all levels: that of the best shape, in the object's cell.

    Shapes are compared by the IoU of boxes with one centre (arXiv 1612.08242, Sec. 2). Where two
    objects come to the same anchor, it has the one that fits it better, and the other has none: a
    known weakness of YOLO. Other anchors whose IoU with an object is at least the threshold are
    ignored, the rest is background. The IoU is that of the anchor itself, as in mmdet; YOLO takes
    the box that is predicted from it.

    The anchors are those of a grid: MODEL.ANCHOR_GENERATOR.OFFSET is 0.5.
    """

    config_keys = ("IOU_THRESHOLDS", "IOU_LABELS", "MULTI_LABEL_IOU_THRESH")

    @configurable
    def __init__(
        self, *, num_classes: int, ignore_iou: float = 0.5, multi_label_iou_thresh: float = 1.0
    ):
        """
        Args:
            num_classes: K; background gets this label.
            ignore_iou: from which on an anchor is not background, in (0, 1).
            multi_label_iou_thresh: see :class:`ImageAssigner`.
        """
        super().__init__(num_classes, multi_label_iou_thresh)
        check_iou_bands([ignore_iou], [0, 1])
        self.ignore_iou = ignore_iou

    @classmethod
    def from_config(cls, cfg: CfgNode, node: CfgNode | None = None) -> dict[str, Any]:
        node = node_of(cfg, node)
        return {
            "num_classes": node.NUM_CLASSES,
            "ignore_iou": node.IOU_THRESHOLDS[-1],
            "multi_label_iou_thresh": node.MULTI_LABEL_IOU_THRESH,
        }

    def _prepare(self, anchors: list[Boxes]) -> tuple[Tensor, list[Grid]]:
        grids, start = [], 0
        for level in anchors:
            grids.append(_grid_of(level.tensor, start))
            start += len(level)
        return Boxes.cat(anchors).tensor, grids

    def _match(
        self, prepared: tuple[Tensor, list[Grid]], gt_boxes: Tensor
    ) -> tuple[Tensor, Tensor]:
        anchors, grids = prepared
        iou, matched = pairwise_iou(Boxes(gt_boxes), Boxes(anchors)).max(dim=0)
        labels = torch.where(iou >= self.ignore_iou, -1, 0).to(torch.int8)
        fit, index = best_shapes(gt_boxes, grids)
        for row in fit.argsort().tolist():  # the best last, so that it stays
            matched[index[row]], labels[index[row]] = row, 1
        return matched, labels


def best_shapes(gt_boxes: Tensor, grids: list[Grid]) -> tuple[Tensor, Tensor]:
    """Of each box its anchor in [0, R), and the IoU of their shapes; both (M,).

    Args:
        gt_boxes: (M, 4), absolute XYXY pixels; a centre out of the grid counts in the next cell.
        grids: of the L levels.
    """
    centres = (gt_boxes[:, :2] + gt_boxes[:, 2:]) / 2
    sizes = gt_boxes[:, 2:] - gt_boxes[:, :2]
    ious, indices = [], []
    for grid in grids:
        column = torch.bucketize(centres[:, 0].contiguous(), grid.columns, right=True)
        row = torch.bucketize(centres[:, 1].contiguous(), grid.rows, right=True)
        count = len(grid.shapes)
        first = grid.start + (row * (len(grid.columns) + 1) + column) * count
        ious.append(shape_iou(sizes, grid.shapes))
        indices.append(first[:, None] + torch.arange(count, device=first.device))
    fit, best = torch.cat(ious, dim=1).max(dim=1)
    return fit, torch.cat(indices, dim=1).gather(1, best[:, None]).squeeze(1)


def shape_iou(sizes: Tensor, shapes: Tensor) -> Tensor:
    """IoU (M, A) of boxes with one centre, of widths and heights (M, 2) and (A, 2)."""
    common = torch.minimum(sizes[:, None], shapes).clamp(min=0).prod(dim=2)
    union = sizes.clamp(min=0).prod(dim=1)[:, None] + shapes.prod(dim=1) - common
    return common / union.clamp(min=torch.finfo(union.dtype).tiny)


def _grid_of(anchors: Tensor, start: int) -> Grid:
    """The grid that anchors (Hi*Wi*A, 4) in the order (Hi, Wi, A) stand on."""
    centres = (anchors[:, :2] + anchors[:, 2:]) / 2
    columns, rows = (_distinct(x) for x in centres.unbind(1))
    count = len(anchors) // (len(columns) * len(rows))
    shapes = anchors[:count, 2:] - anchors[:count, :2]
    return Grid(_between(columns), _between(rows), shapes, start)


def _distinct(places: Tensor) -> Tensor:
    """Rising, without those that differ only by rounding; grids are coarser than a pixel."""
    return (places * 2).round().unique() / 2


def _between(places: Tensor) -> Tensor:
    return (places[1:] + places[:-1]) / 2
