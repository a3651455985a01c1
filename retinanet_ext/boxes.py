"""Boxes, masks and anchors as plain arrays, and work on large matrices of pairs in chunks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pycocotools import mask as mask_codes

__all__ = [
    "AnchorLevel",
    "BoxChanges",
    "best_anchor_iou",
    "in_chunks",
    "with_masks",
    "within_images",
]

PAIRS_AT_ONCE = 2**20  # elements of a matrix of pairs; 4 MiB in float32
BORDER_TOLERANCE = 1.0  # pixels over the border that rounding explains, not worth a line
# Where corners land that were given in 0..1: VOC takes 1 from the first, XYWH adds to the last.
UNIT = (-1.0, 2.0)
NORMALISED_SIDE = 16  # pixels; in smaller images boxes below 1 pixel may be meant
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


@dataclass(frozen=True, eq=False)
class BoxChanges:
    """What :func:`within_images` did, by box: (M,) bool each.

    Attributes:
        no_area: width or height is 0; left out.
        outside: no part of it is in the image; left out.
        turned: corners in the wrong order, now in order.
        cut: stood out of the image, now ends at its border.
        visibly_cut: by more than rounding explains.
        unit: in the image's first pixels, where boxes land that are shares of the image's size.
    """

    no_area: np.ndarray
    outside: np.ndarray
    turned: np.ndarray
    cut: np.ndarray
    visibly_cut: np.ndarray
    unit: np.ndarray

    @property
    def kept(self) -> np.ndarray:
        """(M,) bool: boxes that are left."""
        return ~(self.no_area | self.outside)

    def describe(self, show: Callable[[int], str]) -> str:
        """One line: ``"12 boxes without area left out, first: ..."``; "" if nothing is to be said.

        Args:
            show: the place and numbers of a box, by its index.
        """
        parts = []
        for rows, one, many in (
            (self.no_area, "box without area left out", "boxes without area left out"),
            (self.outside, "box outside of its image left out", "boxes outside left out"),
            (
                self.turned & self.kept,
                "box with corners in the wrong order turned round",
                "boxes with corners in the wrong order turned round",
            ),
            (self.visibly_cut, "box over the border cut", "boxes over the border cut"),
        ):
            number = int(rows.sum())
            if number:
                first = show(int(np.flatnonzero(rows)[0]))
                parts.append(f"{number} {one if number == 1 else many}, first: {first}")
        return "; ".join(parts)

    def why_impossible(self, show: Callable[[int], str]) -> str:
        """Why no training can use these boxes, with the fix; "" if one can."""
        if not len(self.unit):
            return ""
        first = f"first: {show(0)}"
        if self.unit.all():
            return (
                f"all {len(self.unit)} boxes have numbers of 0 to 1, as shares of the image's "
                f"size, but must be in pixels ({first}); multiply them by width and height"
            )
        if not self.kept.any():
            return (
                f"none of the {len(self.unit)} boxes can be used: {int(self.no_area.sum())} have "
                f"no area and {int(self.outside.sum())} lie outside of their image ({first}); "
                "look at their numbers with check-data"
            )
        return ""


def within_images(boxes: np.ndarray, sizes: np.ndarray) -> tuple[np.ndarray, BoxChanges]:
    """Boxes as both training and evaluation count them: in order and within their images.

    Args:
        boxes: (M, 4) XYXY in pixels.
        sizes: (M, 2), height and width of each box's image in pixels; NaN or 0 where unknown, and
            the image has no border then.

    Returns:
        (M, 4) boxes, and what was changed; those that are not ``kept`` are to be left out.
    """
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    known = np.where(np.asarray(sizes) > 0, sizes, np.inf).reshape(-1, 2)
    limit = np.tile(known[:, ::-1], 2)
    first, last = boxes[:, :2], boxes[:, 2:]
    low, high = np.minimum(first, last), np.maximum(first, last)
    ordered = np.concatenate([low, high], axis=1)
    clipped = np.clip(ordered, 0, limit)
    no_area = (low == high).any(axis=1)
    outside = ~no_area & (clipped[:, :2] >= clipped[:, 2:]).any(axis=1)
    gone = no_area | outside
    over = np.abs(clipped - ordered).max(axis=1, initial=0)
    tiny = ((boxes >= UNIT[0]) & (boxes <= UNIT[1])).all(axis=1)
    changes = BoxChanges(
        no_area=no_area,
        outside=outside,
        turned=np.any(first > last, axis=1),
        cut=~gone & (over > 0),
        visibly_cut=~gone & (over > BORDER_TOLERANCE),
        unit=np.logical_and(tiny, np.all(known >= NORMALISED_SIDE, axis=1)),
    )
    return clipped, changes


def with_masks(rows: list[dict[str, Any]], masks: np.ndarray | None) -> list[dict[str, Any]]:
    """The rows of detections with their masks as ``segmentation``, as the evaluation writes them.

    Args:
        rows: N of them.
        masks: (N, H, W) bool; None leaves the rows as they are.
    """
    if masks is None or not rows:
        return rows
    codes = mask_codes.encode(np.asfortranarray(masks.transpose(1, 2, 0), np.uint8))
    return [
        {**row, "segmentation": {"size": code["size"], "counts": code["counts"].decode("ascii")}}
        for row, code in zip(rows, codes, strict=True)
    ]
