"""A picture of the objects that anchors cover worst."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..boxes import AnchorLevel, best_anchor_iou
from ..data.doctor import DatasetTable
from ..data.doctor.boxes import usable_boxes
from ..data.loading.pixels import read_picture
from ..visualization.draw import draw_detections
from ..visualization.sheet import contact_sheet, tile_caption, tile_heights
from .coverage import IOUS
from .training_boxes import TrainingBoxes

__all__ = ["draw_unmatched", "unmatched_rows"]

CONTEXT = 0.75  # of the object's longer side, shown around it
MIN_CONTEXT = 16  # pixels


def unmatched_rows(
    boxes: TrainingBoxes, levels: Sequence[AnchorLevel], iou: float = IOUS[-1]
) -> tuple[np.ndarray, np.ndarray]:
    """Objects without an anchor of IoU ``iou`` in some view.

    Returns:
        Their rows in the table (k,), worst first, and the lowest best IoU over their views (k,).
    """
    best = best_anchor_iou(boxes.boxes, boxes.sizes_of_boxes, levels)
    order = np.lexsort((boxes.rows, best))
    order = order[best[order] < iou]
    first = np.sort(np.unique(boxes.rows[order], return_index=True)[1])
    return boxes.rows[order][first], best[order][first]


def draw_unmatched(
    table: DatasetTable,
    boxes: TrainingBoxes,
    levels: Sequence[AnchorLevel],
    num: int = 24,
    iou: float = IOUS[-1],
    sixteen_bit: str = "",
) -> np.ndarray | None:
    """Cut the ``num`` worst ones out of their images, each labelled with its best IoU.

    Other objects nearby are dashed. ``boxes`` are those of ``resized_boxes`` for ``table``;
    ``sixteen_bit`` is ``INPUT.SIXTEEN_BIT``.

    Returns:
        (H, W, 3) uint8, RGB; None where every object has an anchor in every view.

    Raises:
        OSError: an image cannot be read.
    """
    rows, best = unmatched_rows(boxes, levels, iou)
    if not len(rows):
        return None
    heights = tile_heights([(1, 1)] * len(rows[:num]))  # crops are square
    tiles, captions = [], []
    for row, score, height in zip(rows[:num].tolist(), best[:num].tolist(), heights, strict=True):
        image, (left, top) = _crop(
            read_picture(table.file_of_box(row), "RGB", sixteen_bit), table.xyxy[row]
        )
        others = (table.image_of == table.image_of[row]) & usable_boxes(table)
        others[row] = False
        places = table.xyxy - np.array([left, top, left, top])
        seen = (places[:, 2:] > 0).all(axis=1) & (places[:, :2] < len(image)).all(axis=1)
        label = [int(table.class_of[row])], [score], table.class_names
        tiles.append(draw_detections(image, places[[row]], *label, places[others & seen], height))
        width, tall = table.xyxy[row, 2:] - table.xyxy[row, :2]
        name = Path(table.file_of_box(row)).name
        captions.append(tile_caption(name, f"{width:.0f} x {tall:.0f}", tiles[-1].shape[1]))
    title = f"{len(rows)} objects without an anchor of IoU {iou:g}; the worst, with their best IoU"
    classes = set(table.class_of[rows[:num]].tolist())
    return contact_sheet(tiles, captions, table.class_names, title, classes=classes)


def _crop(image: np.ndarray, box: np.ndarray) -> tuple[np.ndarray, tuple[int, int]]:
    """A square around ``box``, black outside of the image, and its left and top in the image."""
    side = (box[2:] - box[:2]).max()
    half = int(np.ceil(side / 2 + max(side * CONTEXT, MIN_CONTEXT)))
    left, top = np.floor((box[:2] + box[2:]) / 2).astype(int) - half
    crop = np.zeros((2 * half, 2 * half, 3), np.uint8)
    height, width = image.shape[:2]
    x0, y0 = max(left, 0), max(top, 0)
    x1, y1 = min(left + 2 * half, width), min(top + 2 * half, height)
    if x0 < x1 and y0 < y1:
        crop[y0 - top : y1 - top, x0 - left : x1 - left] = image[y0:y1, x0:x1]
    return crop, (int(left), int(top))
