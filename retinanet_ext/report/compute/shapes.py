"""Sizes and shapes of objects as the network sees them, and the anchors that fit them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from detectron2.data.transforms import ResizeShortestEdge
from pycocotools.coco import COCO

from ...boxes import AnchorLevel, best_anchor_iou
from ...evaluation.analysis.assignment import Assignment
from ...evaluation.analysis.recall_by_shape import ShapeRecall, recall_by_shape

__all__ = ["NetworkInput", "network_scales", "shapes_in_network"]


@dataclass(frozen=True, eq=False)
class NetworkInput:
    """How a model looks at a picture.

    Attributes:
        min_size, max_size: ``INPUT.MIN_SIZE_TEST`` (0: the picture as it is), ``MAX_SIZE_TEST``.
        levels: its anchors; () where they are not known.
        padded_to: images are padded to a multiple of it.
    """

    min_size: int
    max_size: int
    levels: Sequence[AnchorLevel] = ()
    padded_to: int = 1


def network_scales(coco_gt: COCO, image_ids: Sequence[object], network: NetworkInput) -> np.ndarray:
    """(I, 3): scale, height and width of each image after Detectron2's resize.

    An image whose annotations give no size stays as it is, with a height and width of 0.
    """
    rows = []
    for image_id in image_ids:
        image = coco_gt.imgs[image_id]
        height, width = int(image.get("height") or 0), int(image.get("width") or 0)
        if not height or not width or not network.min_size:
            rows.append((1.0, height, width))
            continue
        new_height, new_width = ResizeShortestEdge.get_output_shape(
            height, width, network.min_size, network.max_size
        )
        rows.append((new_height / height, new_height, new_width))
    return np.array(rows, np.float64).reshape(-1, 3)


def shapes_in_network(
    assignment: Assignment,
    thresholds: np.ndarray,
    coco_gt: COCO,
    network: NetworkInput,
) -> ShapeRecall:
    """Recall by size and shape in pixels of the network's input, beside the best anchors' IoU.

    Args:
        assignment: of the detections.
        thresholds: (K,), scores from which detections count.
        coco_gt: has the sizes of the images.
        network: how the model looks at them.
    """
    tables = assignment.tables
    sizes = network_scales(coco_gt, tables.image_ids, network)
    scales = sizes[:, 0]
    anchor_iou = None
    if network.levels:
        of_box = sizes[tables.objects.image]
        xywh = tables.objects.box * of_box[:, :1]
        boxes = np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1)
        padded = np.ceil(of_box[:, 1:] / network.padded_to) * network.padded_to
        anchor_iou = best_anchor_iou(boxes, padded[:, ::-1], network.levels)
    return recall_by_shape(assignment, thresholds, scales, anchor_iou)
