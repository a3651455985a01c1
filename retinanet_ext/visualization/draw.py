"""Draw detections over ground truth.

Images are (H, W, 3) uint8, RGB; boxes are (N, 4) absolute XYXY, in pixels of the image.
Drawn only with Pillow, at the final size: lines and letters stay sharp on small images.
"""

from __future__ import annotations

import colorsys
import functools
import os
from collections.abc import Iterator, Sequence

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

__all__ = [
    "class_color",
    "draw_box",
    "draw_dashed_box",
    "draw_detections",
    "draw_labels",
    "load_font",
    "pixel_boxes",
]

Color = tuple[int, int, int]
Box = tuple[int, int, int, int]

PALETTE = ("#ff5a5f", "#2ec4b6", "#ffb703", "#4cc9f0", "#b388ff", "#9ef01a", "#ff8fab", "#f77f00")
WHITE, SHADOW = (255, 255, 255, 240), (0, 0, 0, 130)
LABEL_PX = 16


def class_color(index: int) -> Color:
    """A bright colour for class ``index``; the first eight are chosen, the rest computed."""
    if index < len(PALETTE):
        red, green, blue = bytes.fromhex(PALETTE[index][1:])
        return red, green, blue
    hue = (index * 0.61803398875) % 1  # steps of the golden ratio keep neighbours apart
    r, g, b = colorsys.hsv_to_rgb(hue, 0.6, 0.98)
    return round(r * 255), round(g * 255), round(b * 255)


def draw_detections(
    image: np.ndarray,
    boxes: np.ndarray,
    classes: Sequence[int],
    scores: Sequence[float],
    class_names: Sequence[str],
    gt_boxes: np.ndarray | None = None,
    height: int | None = None,
) -> np.ndarray:
    """Draw labelled boxes, in the colours of their classes, over dashed white ground truth.

    Args:
        image: (H, W, 3) uint8, RGB; left as it is.
        boxes: (N, 4).
        classes: (N,) indices into ``class_names``.
        scores: (N,) in [0, 1].
        class_names: (K,).
        gt_boxes: (M, 4).
        height: of the result in px; that of the image by default.

    Returns:
        (height, W', 3) uint8, RGB.
    """
    height = height or image.shape[0]
    scale = height / image.shape[0]
    width = round(image.shape[1] * scale)
    canvas = Image.fromarray(image).resize((width, height), Image.Resampling.LANCZOS)
    pen = ImageDraw.Draw(canvas, "RGBA")
    for box in pixel_boxes(() if gt_boxes is None else gt_boxes, scale, width, height):
        draw_dashed_box(pen, box)
    found = list(pixel_boxes(boxes, scale, width, height))
    surest_first = np.argsort(-np.asarray(scores, dtype=float), kind="stable").tolist()
    for i in reversed(surest_first):
        draw_box(pen, found[i], class_color(int(classes[i])))
    texts = [f"{class_names[int(classes[i])]} {float(scores[i]):.2f}" for i in surest_first]
    colors = [class_color(int(classes[i])) for i in surest_first]
    draw_labels(pen, texts, [found[i] for i in surest_first], colors, canvas.size)
    return np.asarray(canvas)


def draw_labels(
    pen: ImageDraw.ImageDraw,
    texts: Sequence[str],
    boxes: Sequence[Box],
    colors: Sequence[Color],
    canvas: tuple[int, int],
) -> None:
    """Write a label at each box; the first one gets the best place.

    Args:
        pen: draws on a canvas of (width, height) ``canvas``, px.
        texts, boxes, colors: of the labels.
    """
    labels: list[tuple[str, Box, Color]] = []
    for text, box, color in zip(texts, boxes, colors, strict=True):
        place = _place_label(pen, text, box, [other for _, other, _ in labels], canvas)
        labels.append((text, place, color))
    for text, place, color in reversed(labels):
        _draw_label(pen, text, place, color)


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


@functools.cache
def load_font(px: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which comes with matplotlib (Detectron2 needs that) and knows most scripts."""
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(os.path.join(matplotlib.get_data_path(), "fonts", "ttf", name), px)


def pixel_boxes(
    boxes: np.ndarray | Sequence, scale: float, width: int, height: int
) -> Iterator[Box]:
    """Scale (N, 4) to whole pixels inside of a picture of this width and height."""
    for x0, y0, x1, y1 in np.asarray(boxes, dtype=float).reshape(-1, 4) * scale:
        left, top = min(max(round(x0), 0), width - 2), min(max(round(y0), 0), height - 2)
        right, bottom = min(round(x1), width) - 1, min(round(y1), height) - 1
        yield left, top, max(right, left + 1), max(bottom, top + 1)


def draw_box(pen: ImageDraw.ImageDraw, box: Box, color: Color) -> None:
    """Draw a rectangle with a shadow, so that it shows on any ground."""
    x0, y0, x1, y1 = box
    pen.rectangle((x0 - 1, y0 - 1, x1 + 1, y1 + 1), outline=SHADOW, width=4)
    pen.rectangle(box, outline=(*color, 255), width=2)


def _place_label(
    pen: ImageDraw.ImageDraw, text: str, box: Box, taken: Sequence[Box], canvas: tuple[int, int]
) -> Box:
    """Choose where the label hides least: around the box, else within, clear of other labels."""
    x0, y0 = box[:2]
    x1, y1 = box[2] + 1, box[3] + 1  # exclusive
    w = round(pen.textlength(text, load_font(LABEL_PX))) + 8
    h = LABEL_PX + 6
    corners = [(x0, y0 - h), (x1 - w, y0 - h), (x0, y1), (x1 - w, y1)]  # outside
    corners += [(x0, y0), (x1 - w, y0), (x0, y1 - h), (x1 - w, y1 - h)]  # inside
    inside_canvas = [
        (min(max(x, 0), max(canvas[0] - w, 0)), min(max(y, 0), max(canvas[1] - h, 0)))
        for x, y in corners
    ]
    places = [(x, y, x + w, y + h) for x, y in inside_canvas]

    def hidden(place: Box) -> float:
        own = _overlap(place, box) / ((x1 - x0) * (y1 - y0))
        others = sum(_overlap(place, other) for other in taken) / (w * h)
        return others + max(own - 0.3, 0)  # a large box may lose a little of its rim

    return min(places, key=hidden)


def _overlap(a: Box, b: Box) -> int:
    """Area in px that two boxes share."""
    return max(min(a[2], b[2]) - max(a[0], b[0]), 0) * max(min(a[3], b[3]) - max(a[1], b[1]), 0)


def _draw_label(pen: ImageDraw.ImageDraw, text: str, place: Box, color: Color) -> None:
    x0, y0, x1, y1 = place
    pen.rounded_rectangle((x0, y0, x1 - 1, y1 - 1), 3, fill=(*color, 235))
    ink = "#10141a" if 0.3 * color[0] + 0.59 * color[1] + 0.11 * color[2] > 120 else "#ffffff"
    pen.text((x0 + 4, (y0 + y1) / 2), text, ink, load_font(LABEL_PX), anchor="lm")
