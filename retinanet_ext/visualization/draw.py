"""Draw detections over ground truth.

Images are (H, W, 3) uint8, RGB; boxes are (N, 4) absolute XYXY, in pixels of the image.
Drawn only with Pillow, at the final size: lines and letters stay sharp on small images.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from .labels import Box, LabelForm, class_labels, draw_labels
from .palette import Color, class_color

__all__ = [
    "draw_box",
    "draw_dashed_box",
    "draw_detections",
    "drawn_detections",
    "pixel_boxes",
]

WHITE, SHADOW = (255, 255, 255, 240), (0, 0, 0, 130)
TINT = 110  # of 255, how much of its colour a mask takes

SIDE_PER_ZOOM = 900
"""Pixels of the shorter side for each further 2 px of lines and 16 px of letters."""


def draw_detections(*args: Any, **options: Any) -> np.ndarray:
    """:func:`drawn_detections` as (height, W', 3) uint8, RGB."""
    return np.asarray(drawn_detections(*args, **options))


def drawn_detections(
    image: np.ndarray,
    boxes: np.ndarray,
    classes: Sequence[int],
    scores: Sequence[float],
    class_names: Sequence[str],
    gt_boxes: np.ndarray | None = None,
    height: int | None = None,
    labels: bool = True,
    masks: np.ndarray | None = None,
) -> Image.Image:
    """Draw labelled boxes, in the colours of their classes, over dashed white ground truth.

    On pictures of thousands of pixels, lines and letters are larger: they are looked at as a whole.

    Args:
        image: (H, W, 3) uint8, RGB; left as it is.
        boxes: (N, 4).
        classes: (N,) indices into ``class_names``.
        scores: (N,) in [0, 1].
        class_names: (K,).
        gt_boxes: (M, 4).
        height: of the result in px; that of the image by default.
        labels: write classes and scores too.
        masks: (N, H, W) bool, tinted in the colours of the boxes.

    Returns:
        RGB, of the height; a copy of the image, and the only one on the way.
    """
    height = height or image.shape[0]
    scale = height / image.shape[0]
    width = round(image.shape[1] * scale)
    canvas = Image.fromarray(image)
    if canvas.size != (width, height):
        canvas = canvas.resize((width, height), Image.Resampling.LANCZOS)
    surest_first = np.argsort(-np.asarray(scores, dtype=float), kind="stable").tolist()
    if masks is not None:
        for i in reversed(surest_first):
            tint = Image.fromarray(masks[i].astype(np.uint8) * TINT).resize(canvas.size)
            canvas.paste(class_color(int(classes[i])), mask=tint)
    pen = ImageDraw.Draw(canvas, "RGBA")
    for box in pixel_boxes(() if gt_boxes is None else gt_boxes, scale, width, height):
        draw_dashed_box(pen, box)
    found = list(pixel_boxes(boxes, scale, width, height))
    zoom = max(1, round(min(width, height) / SIDE_PER_ZOOM))
    for i in reversed(surest_first):
        draw_box(pen, found[i], class_color(int(classes[i])), zoom)
    if not labels:
        return canvas
    kinds = [int(classes[i]) for i in surest_first]
    forms = class_labels(kinds, class_names, [scores[i] for i in surest_first])
    forms = [LabelForm(form.texts, form.px * zoom) for form in forms]
    places = [found[i] for i in surest_first]
    draw_labels(pen, forms, places, [class_color(k) for k in kinds], canvas.size)
    return canvas


def draw_dashed_box(pen: ImageDraw.ImageDraw, box: Box, dash: int = 6) -> None:
    """Draw a thin dashed rectangle, white with a shadow so that it shows on any ground."""
    x0, y0, x1, y1 = box
    for offset, color in ((1, SHADOW), (0, WHITE)):
        for x in range(x0, x1, 2 * dash):
            end = min(x + dash, x1)
            for y in (y0, y1):
                pen.line((x + offset, y + offset, end + offset, y + offset), color)
        for y in range(y0, y1, 2 * dash):
            end = min(y + dash, y1)
            for x in (x0, x1):
                pen.line((x + offset, y + offset, x + offset, end + offset), color)


def pixel_boxes(
    boxes: np.ndarray | Sequence, scale: float, width: int, height: int
) -> Iterator[Box]:
    """Scale (N, 4) to whole pixels inside of a picture of this width and height."""
    for x0, y0, x1, y1 in np.asarray(boxes, dtype=float).reshape(-1, 4) * scale:
        left, top = min(max(round(x0), 0), width - 2), min(max(round(y0), 0), height - 2)
        right, bottom = min(round(x1), width) - 1, min(round(y1), height) - 1
        yield left, top, max(right, left + 1), max(bottom, top + 1)


def draw_box(pen: ImageDraw.ImageDraw, box: Box, color: Color, zoom: int = 1) -> None:
    """Draw a rectangle with a shadow, so that it shows on any ground; 2 px wide, ``zoom`` times."""
    x0, y0, x1, y1 = box
    pen.rectangle((x0 - zoom, y0 - zoom, x1 + zoom, y1 + zoom), outline=SHADOW, width=4 * zoom)
    pen.rectangle(box, outline=(*color, 255), width=2 * zoom)
