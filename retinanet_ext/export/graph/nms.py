"""NMS of several images and groups at once, as one operation of whatever the file is made for.

Letters: N images, G groups (a box suppresses only those of its own), T boxes, D detections.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torchvision.ops import nms

__all__ = ["MOST_GROUPS", "Nms", "nms_by_onnx_node", "nms_by_onnx_symbol", "nms_by_torchvision"]

MOST_GROUPS = 1203
"""ONNX's operator wants scores (N, G, T), which are mostly zeros."""

Nms = Callable[[Tensor, Tensor, Tensor, int, float, int], Tensor]
"""Called with:

- boxes (N, T, 4), finite XYXY pixels;
- scores (N, T), 0 where there is no box;
- groups (N, T) int64 in [0, G);
- G, the IoU from which on a worse box is dropped, and D, that are asked for in the end.

Returns int64 indices into N*T of boxes that are kept, in any order; of each image at least the best
D of them. Boxes without a score may be among them.
"""


def nms_by_torchvision(
    boxes: Tensor, scores: Tensor, groups: Tensor, num_groups: int, iou_thresh: float, most: int
) -> Tensor:
    """By torchvision's operator, which PyTorch's own formats keep; see :data:`Nms`."""
    # Images and groups are moved apart, in float64: float32 would round the boxes.
    images = torch.arange(scores.shape[0], device=boxes.device).unsqueeze(1)
    extent = (boxes.amax() - boxes.amin() + 1).double()
    moved = boxes.double() + ((images * num_groups + groups) * extent).unsqueeze(2)
    return nms(moved.reshape(-1, 4), scores.double().reshape(-1), iou_thresh)


def nms_by_onnx_node(
    boxes: Tensor, scores: Tensor, groups: Tensor, num_groups: int, iou_thresh: float, most: int
) -> Tensor:
    """By ONNX's operator, for PyTorch's exporter that reads programs; see :data:`Nms`."""
    found = torch.ops.retinanet_ext.grouped_nms(
        boxes, _of_groups(scores, groups, num_groups), iou_thresh, most
    )
    return found[:, 0] * scores.shape[1] + found[:, 2]


def nms_by_onnx_symbol(
    boxes: Tensor, scores: Tensor, groups: Tensor, num_groups: int, iou_thresh: float, most: int
) -> Tensor:
    """By ONNX's operator, for PyTorch's exporter that reads traces; see :data:`Nms`."""
    found = _Symbol.apply(boxes, _of_groups(scores, groups, num_groups), iou_thresh, most)
    return found[:, 0] * scores.shape[1] + found[:, 2]


def onnx_translations() -> dict[Any, Callable[..., Any]]:
    """For ``torch.onnx.export``: what the operator of :func:`nms_by_onnx_node` becomes."""
    import numpy as np
    import onnx
    from onnxscript import opset18

    op: Any = opset18

    def grouped_nms(boxes: Any, scores: Any, iou_thresh: float, most: int) -> Any:
        limit = onnx.numpy_helper.from_array(np.array([most], dtype=np.int64))
        return op.NonMaxSuppression(
            boxes,
            scores,
            op.Constant(value=limit),
            op.Constant(value_floats=[iou_thresh]),
            op.Constant(value_floats=[0.0]),
        )

    return {torch.ops.retinanet_ext.grouped_nms.default: grouped_nms}


def _of_groups(scores: Tensor, groups: Tensor, num_groups: int) -> Tensor:
    """Scores (N, G, T): each box's own in its group, 0 elsewhere."""
    if num_groups == 1:
        return scores.unsqueeze(1)
    mine = groups.unsqueeze(1) == torch.arange(num_groups, device=groups.device).view(1, -1, 1)
    return scores.unsqueeze(1) * mine.to(scores.dtype)


@torch.library.custom_op("retinanet_ext::grouped_nms", mutates_args=())
def _grouped_nms(boxes: Tensor, scores: Tensor, iou_thresh: float, most: int) -> Tensor:
    """ONNX's NonMaxSuppression: rows of image, group and box, (M, 3) int64.

    Args:
        boxes: (N, T, 4).
        scores: (N, G, T); above 0, or there is no box.
        iou_thresh, most: of each group.
    """
    rows = [boxes.new_zeros((0, 3), dtype=torch.int64)]
    for image, of_image in enumerate(scores):
        for group, of_group in enumerate(of_image):
            index = (of_group > 0).nonzero().flatten()
            kept = index[nms(boxes[image, index], of_group[index], iou_thresh)[:most]]
            place = kept.new_tensor([image, group]).expand(len(kept), 2)
            rows.append(torch.cat([place, kept.unsqueeze(1)], dim=1))
    return torch.cat(rows)


@_grouped_nms.register_fake
def _(boxes: Tensor, scores: Tensor, iou_thresh: float, most: int) -> Tensor:
    return boxes.new_empty((torch.library.get_ctx().new_dynamic_size(), 3), dtype=torch.int64)


class _Symbol(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, boxes: Tensor, scores: Tensor, iou_thresh: float, most: int) -> Tensor:
        return torch.ops.retinanet_ext.grouped_nms(boxes, scores, iou_thresh, most)

    @staticmethod
    def symbolic(g: Any, boxes: Any, scores: Any, iou_thresh: float, most: int) -> Any:
        limits = [
            g.op("Constant", value_t=torch.tensor([value], dtype=dtype))
            for value, dtype in (
                (most, torch.int64),
                (iou_thresh, torch.float32),
                (0.0, torch.float32),
            )
        ]
        return g.op("NonMaxSuppression", boxes, scores, *limits)
