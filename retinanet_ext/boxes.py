"""Boxes and anchors as plain arrays, and work on large matrices of pairs in chunks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

__all__ = ["AnchorLevel", "best_anchor_iou", "in_chunks"]

PAIRS_AT_ONCE = 2**20  # elements of a matrix of pairs; 4 MiB in float32
BOXES_AT_ONCE = 2**16  # so that the scratch arrays of best_anchor_iou stay in the cache


@dataclass(frozen=True, eq=False)
class AnchorLevel:
    """Anchors of one feature level.

    Attributes:
        stride: distance between two locations, in pixels.
        cells: (A, 4) XYXY around a location, in pixels.
        offset: of the first location from the image's corner, in strides.
    """

    stride: float
    cells: np.ndarray
    offset: float = 0.5


def in_chunks(rows: int, columns: int, most: int | None = None) -> list[slice]:
    """Cut the rows of a (rows, columns) matrix into consecutive chunks.

    Args:
        rows: 0 or more; 0 gives no chunk.
        columns: elements of each row.
        most: elements of a chunk, which has at least one row; ``PAIRS_AT_ONCE`` by default.
    """
    step = max(1, (PAIRS_AT_ONCE if most is None else most) // max(1, columns))
    return [slice(start, min(start + step, rows)) for start in range(0, rows, step)]


def best_anchor_iou(
    boxes: np.ndarray, image_sizes: np.ndarray, levels: Sequence[AnchorLevel]
) -> np.ndarray:
    """Largest IoU of each box with any anchor, without the full matrix.

    For one anchor shape, the overlap is a product of one factor of the distance in x and one of
    that in y, neither of which grows with the distance, and the union only depends on the overlap.
    So the best location is the nearest in x and in y: one candidate per shape and level is exact.

    Args:
        boxes: (n, 4) XYXY in the resized image.
        image_sizes: (n, 2) width and height of the padded image of each box.
        levels: the anchors.

    Returns:
        (n,) float64.
    """
    best = np.zeros(len(boxes))
    for part in in_chunks(len(boxes), 1, BOXES_AT_ONCE):
        best[part] = _best_of_chunk(boxes[part], image_sizes[part], levels)
    return best


def _best_of_chunk(
    boxes: np.ndarray, image_sizes: np.ndarray, levels: Sequence[AnchorLevel]
) -> np.ndarray:
    best = np.zeros(len(boxes))
    box_area = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    box_center = (boxes[:, :2] + boxes[:, 2:]) / 2
    for level in levels:
        last_index = np.ceil(image_sizes / level.stride) - 1
        for cell in np.asarray(level.cells, dtype=float):
            anchor_center_offset = (cell[:2] + cell[2:]) / 2
            nearest = np.rint((box_center - anchor_center_offset) / level.stride - level.offset)
            location = (np.clip(nearest, 0, last_index) + level.offset) * level.stride
            overlap = np.minimum(boxes[:, 2:], location + cell[2:])
            overlap -= np.maximum(boxes[:, :2], location + cell[:2])
            intersection = overlap.clip(min=0).prod(axis=1)
            union = box_area + (cell[2:] - cell[:2]).prod() - intersection
            np.maximum(best, intersection / union, out=best)
    return best
