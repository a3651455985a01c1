"""Boxes that cannot be right, seen only from the annotations."""

from __future__ import annotations

import numpy as np

from .findings import Fault
from .table import DatasetTable

__all__ = [
    "BORDER_TOLERANCE",
    "check_boxes",
    "corners_are_certain",
    "normalised_layout",
    "usable_boxes",
]

BORDER_TOLERANCE = 1.0  # pixels over the border that rounding explains
MIN_IMAGE_SIDE = 16  # pixels; boxes below 1 pixel may be meant in an image smaller than this
# A whole dataset is in corners when nearly all boxes would be fine as corners, and this share
# stands out of its image as it is.
CORNERS_SHARE, STICKING_OUT_SHARE = 0.99, 0.1
CERTAIN_NUMBER = 3  # of boxes that stand out, before --fix takes a dataset for one in corners
STICKING_OUT = 0.05  # of the image's side; less is a sloppy box, not another format


def check_boxes(table: DatasetTable) -> list[Fault]:
    """Faults of single boxes; each box is in one of them at most, but for duplicates."""
    finite = np.isfinite(table.bboxes).all(axis=1)
    size = table.xyxy[:, 2:] - table.xyxy[:, :2]
    inverted = finite & (size < 0).any(axis=1)
    no_area = finite & ~inverted & (size == 0).any(axis=1)
    good = finite & ~inverted & ~no_area
    normalised = good & _is_normalised(table)
    good &= ~normalised
    corners = good & _looks_like_corners(table, good)
    good &= ~corners
    outside, over_border = _border(table, good)

    def recorded(row: int) -> str:
        kind = "XYWH" if table.is_xywh[row] else "XYXY"
        return f"bbox {_numbers(table.bboxes[row])} ({kind})"

    def in_image(row: int) -> str:
        width, height = table.image_sizes_of_boxes[row]
        return f"the image of {width:g} x {height:g}"

    layout = normalised_layout(table, np.flatnonzero(normalised))
    return [
        Fault.where(
            "box_malformed", "box", table.malformed, lambda _: "bbox is not four numbers in pixels"
        ),
        Fault.where(
            "box_as_text",
            "box",
            table.as_text,
            lambda row: (
                f"{recorded(row)} is written as texts; not every tool takes them for numbers"
            ),
        ),
        Fault(
            "wrong_flag",
            "box",
            np.array(list(table.wrong_flags), dtype=np.int64),
            lambda row: table.wrong_flags[row],
        ),
        Fault.where(
            "box_not_finite",
            "box",
            ~finite & ~table.malformed,
            lambda row: f"{recorded(row)} is not finite",
        ),
        Fault.where(
            "box_inverted",
            "box",
            inverted,
            lambda row: f"{recorded(row)} has x2 < x1 or y2 < y1",
        ),
        Fault.where("box_no_area", "box", no_area, lambda row: f"{recorded(row)} has no area"),
        Fault.where(
            "box_normalised",
            "box",
            normalised,
            lambda row: f"{recorded(row)} looks normalised to 0..1 ({layout}), not in pixels",
        ),
        Fault.where(
            "box_looks_xyxy",
            "box",
            corners,
            lambda row: f"{recorded(row)} does not fit into {in_image(row)} but would as XYXY",
        ),
        Fault.where(
            "box_outside",
            "box",
            outside,
            lambda row: f"{recorded(row)} lies outside of {in_image(row)}",
        ),
        Fault.where(
            "box_over_border",
            "box",
            over_border,
            lambda row: f"{recorded(row)} stands out of {in_image(row)}",
        ),
        _duplicates(table, good & (table.image_of >= 0) & ~table.is_crowd),
    ]


def usable_boxes(table: DatasetTable) -> np.ndarray:
    """(M,) bool: boxes with area, known image and category that are objects, not crowds."""
    with np.errstate(invalid="ignore"):
        has_area = (table.xyxy[:, 2:] > table.xyxy[:, :2]).all(axis=1)
    finite = np.isfinite(table.bboxes).all(axis=1)
    return finite & has_area & (table.class_of >= 0) & (table.image_of >= 0) & ~table.is_crowd


def normalised_layout(table: DatasetTable, rows: np.ndarray) -> str:
    """How boxes given in 0..1 are meant, from which reading keeps them in the image.

    Returns:
        "XYWH", "CXCYWH" (YOLO) or "XYXY"; the table's own where nothing speaks against it.
    """
    if not table.is_xywh[rows].all():
        return "XYXY"
    first, last = table.bboxes[rows, :2], table.bboxes[rows, 2:]
    slack = 1e-3
    if (first + last <= 1 + slack).all():
        return "XYWH"
    half = last / 2
    fits = (first - half >= -slack) & (first + half <= 1 + slack)
    return "CXCYWH" if fits.all() else "XYXY"


def _is_normalised(table: DatasetTable) -> np.ndarray:
    """(M,) bool: all numbers in [0, 1], which as pixels would be the corner of the image."""
    in_unit = ((table.bboxes >= 0) & (table.bboxes <= 1)).all(axis=1)
    is_small = (table.image_sizes_of_boxes < MIN_IMAGE_SIDE).any(axis=1)
    return np.logical_and(in_unit, np.logical_not(is_small))


def _looks_like_corners(table: DatasetTable, good: np.ndarray) -> np.ndarray:
    """(M,) bool: given as XYWH and meant as XYXY.

    Either almost all boxes of the dataset agree on it, or all boxes of an image do and one of them
    stands far out of the image otherwise.
    """
    sizes = table.image_sizes_of_boxes
    judged = good & table.is_xywh & np.isfinite(sizes).all(axis=1)
    with np.errstate(invalid="ignore"):
        in_order = (table.bboxes[:, 2:] > table.bboxes[:, :2]).all(axis=1)
        in_order &= (table.bboxes[:, :2] >= -BORDER_TOLERANCE).all(axis=1)
        fits = judged & in_order & (table.bboxes[:, 2:] <= sizes + BORDER_TOLERANCE).all(axis=1)
        limit = sizes + np.maximum(BORDER_TOLERANCE, STICKING_OUT * sizes)
        sticks_out = judged & (table.xyxy[:, 2:] > limit).any(axis=1)
    total = max(1, int(judged.sum()))
    whole = fits.sum() >= CORNERS_SHARE * total and sticks_out.sum() >= STICKING_OUT_SHARE * total
    if whole:
        return fits
    num_images = len(table.files)
    images = table.image_of[judged]
    agreeing = np.bincount(images, weights=fits[judged], minlength=num_images)
    is_whole = agreeing == np.bincount(images, minlength=num_images)
    is_hit = np.bincount(images, weights=(fits & sticks_out)[judged], minlength=num_images) > 0
    found = np.zeros_like(judged)
    found[judged] = (is_whole & is_hit)[images]
    return found


def corners_are_certain(table: DatasetTable, rows: np.ndarray) -> bool:
    """Whether boxes that look like corners are corners: one large box over the border is none.

    Args:
        rows: the boxes that look like it; nearly all of the dataset must, and several stand out.
    """
    size = table.xyxy[:, 2:] - table.xyxy[:, :2]
    judged = table.is_xywh & np.isfinite(table.image_sizes_of_boxes).all(axis=1)
    judged &= np.all(size > 0, axis=1)  # False for NaN
    limit = (1 + STICKING_OUT) * table.image_sizes_of_boxes[rows]
    sticking_out = int((table.xyxy[rows, 2:] > limit).any(axis=1).sum())
    share = len(rows) / max(1, int(judged.sum()))
    return share >= CORNERS_SHARE and sticking_out >= CERTAIN_NUMBER


def _border(table: DatasetTable, good: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which of the good boxes are outside of their image, and which stand out of it."""
    sizes = table.image_sizes_of_boxes
    with np.errstate(invalid="ignore"):  # NaN where the size is unknown: never outside
        outside = (table.xyxy[:, :2] >= sizes).any(axis=1) | (table.xyxy[:, 2:] <= 0).any(axis=1)
        over = (table.xyxy[:, 2:] > sizes + BORDER_TOLERANCE).any(axis=1)
        over |= (table.xyxy[:, :2] < -BORDER_TOLERANCE).any(axis=1)
    return good & outside, good & over & ~outside


def _duplicates(table: DatasetTable, good: np.ndarray) -> Fault:
    """Boxes that come again in the same image with the same class, to a hundredth of a pixel."""
    rows = np.flatnonzero(good)
    box = np.round(table.xyxy[rows] * 100).T
    keys = np.vstack([table.image_of[rows], table.class_of[rows], box])
    # The sort is stable: of equal boxes, the one that comes first in the file stays first.
    order = np.lexsort(keys)
    keys = keys[:, order]
    again = np.concatenate([[False], (keys[:, 1:] == keys[:, :-1]).all(axis=0)])[: len(rows)]
    starts = np.maximum.accumulate(np.where(again, 0, np.arange(len(rows))))
    first_of = dict(
        zip(rows[order][again].tolist(), rows[order][starts][again].tolist(), strict=True)
    )

    def message(row: int) -> str:
        first = first_of[row]
        name = f"annotation {table.annotation_ids[first]!r}"
        if table.annotation_ids[first] is None:  # as in most formats but COCO
            boxes = np.flatnonzero(table.image_of == table.image_of[row])
            name = f"box {np.searchsorted(boxes, first) + 1} of the image"
        return f"bbox {_numbers(table.bboxes[row])} and class repeat those of {name}"

    return Fault("duplicate_box", "box", np.sort(rows[order][again]), message)


def _numbers(box: np.ndarray) -> str:
    return "[" + ", ".join(f"{x:.6g}" for x in box) + "]"
