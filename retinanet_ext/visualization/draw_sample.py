"""Draw what a detector trains on: an augmented image, its boxes, what is ignored, its anchors."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from .draw import draw_box, draw_dashed_box, pixel_boxes
from .labels import Box, class_labels, draw_labels
from .palette import class_color

__all__ = ["draw_sample"]

ANCHOR_ALPHA = 150
HATCH_COLOR, HATCH_SHADOW = (255, 255, 255, 150), (0, 0, 0, 60)
HATCH_STEP = 12  # px between lines


def draw_sample(
    image: np.ndarray,
    boxes: np.ndarray,
    classes: Sequence[int],
    ignore_boxes: np.ndarray,
    class_names: Sequence[str] | None = None,
    anchors: np.ndarray | None = None,
    anchor_classes: Sequence[int] = (),
    height: int | None = None,
) -> np.ndarray:
    """Draw boxes in the colours of their classes, ignored regions hatched, anchors thin.

    Args:
        image: (H, W, 3) uint8, RGB; left as it is.
        boxes: (N, 4) absolute XYXY, px of the image, as are all others.
        classes: (N,).
        ignore_boxes: (I, 4).
        class_names: (K,); with them, each box is labelled.
        anchors: (P, 4) positive anchors.
        anchor_classes: (P,).
        height: of the result in px; that of the image by default.

    Returns:
        (height, W', 3) uint8, RGB.
    """
    height = height or image.shape[0]
    scale = height / image.shape[0]
    width = max(round(image.shape[1] * scale), 1)
    canvas = Image.fromarray(image).resize((width, height), Image.Resampling.LANCZOS)
    pen = ImageDraw.Draw(canvas, "RGBA")
    for box in pixel_boxes(ignore_boxes, scale, width, height):
        _hatch(pen, box)
        draw_dashed_box(pen, box)
    for row, k in zip(() if anchors is None else anchors, anchor_classes, strict=True):
        # Not clipped: an anchor may well reach over the rim.
        pen.rectangle(
            tuple(np.round(row * scale).tolist()), outline=(*class_color(int(k)), ANCHOR_ALPHA)
        )
    found = list(pixel_boxes(boxes, scale, width, height))
    colors = [class_color(int(k)) for k in classes]
    for box, color in zip(found, colors, strict=True):
        draw_box(pen, box, color)
    if class_names is not None:
        draw_labels(pen, class_labels(classes, class_names), found, colors, canvas.size)
    return np.asarray(canvas)


def _hatch(pen: ImageDraw.ImageDraw, box: Box) -> None:
    """Fill a box with diagonal lines."""
    x0, y0, x1, y1 = box
    for offset in range(HATCH_STEP, (x1 - x0) + (y1 - y0), HATCH_STEP):
        # From the left or bottom side up to the top or right one.
        down, right = min(offset, y1 - y0), min(offset, x1 - x0)
        line = (x0 + offset - down, y0 + down, x0 + right, y0 + offset - right)
        pen.line(line, HATCH_SHADOW, width=3)
        pen.line(line, HATCH_COLOR)
