"""Pictures with what was found, wrong and missed: small, and without their metadata."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from ..data.loading.pixels import read_picture
from ..visualization.draw import pixel_boxes
from ..visualization.labels import LabelForm, draw_labels
from ..visualization.palette import Color

__all__ = ["Boxes", "draw_picture"]

LONG_SIDE = 480  # pixels
QUALITY = 80
COLORS = {"found": (40, 190, 100), "false": (255, 70, 60), "missed": (255, 176, 32)}
DARK = (0, 0, 0, 150)
DASH = 6  # pixels


@dataclass(frozen=True, eq=False)
class Boxes:
    """Boxes of one kind: "found", "false" or "missed".

    Attributes:
        kind: one of these.
        boxes: (N, 4), absolute XYXY in pixels of the picture.
        said: (N,), short texts, "" for none.
    """

    kind: str
    boxes: np.ndarray
    said: Sequence[str]


def draw_picture(path: str, layers: Sequence[Boxes], sixteen_bit: str = "") -> str:
    """A JPEG with a longer side of LONG_SIDE pixels as a data URI.

    Only pixels get into it: no EXIF, no place, no name.

    Args:
        path: of the picture.
        layers: drawn in this order.
        sixteen_bit: ``INPUT.SIXTEEN_BIT``.

    Raises:
        OSError, ValueError, SyntaxError: the picture cannot be read.
    """
    pixels = read_picture(path, "RGB", sixteen_bit)
    height, width = pixels.shape[:2]
    # Small pictures are enlarged, so that texts on them can be read.
    scale = LONG_SIDE / max(height, width)
    size = max(round(width * scale), 2), max(round(height * scale), 2)
    canvas = Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS)
    pen = ImageDraw.Draw(canvas, "RGBA")
    places, texts, colors = [], [], []
    for layer in layers:
        color = COLORS[layer.kind]
        for box, said in zip(pixel_boxes(layer.boxes, scale, *size), layer.said, strict=True):
            _draw_box(pen, box, color, dashed=layer.kind == "missed")
            if said:
                places.append(box)
                texts.append(said)
                colors.append(color)
    forms = [LabelForm(texts, px) for px in (13, 11)]
    draw_labels(pen, forms, places, colors, canvas.size)
    buffer = io.BytesIO()
    canvas.save(buffer, "JPEG", quality=QUALITY, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _draw_box(
    pen: ImageDraw.ImageDraw, box: tuple[int, int, int, int], color: Color, dashed: bool
) -> None:
    """A rectangle with a dark rim, so that it shows on any ground."""
    x0, y0, x1, y1 = box
    pen.rectangle((x0 - 1, y0 - 1, x1 + 1, y1 + 1), outline=DARK, width=4)
    if not dashed:
        pen.rectangle(box, outline=(*color, 255), width=2)
        return
    for x in range(x0, x1 + 1, 2 * DASH):
        for y in (y0, y1 - 1):
            pen.rectangle((x, y, min(x + DASH, x1), y + 1), fill=(*color, 255))
    for y in range(y0, y1 + 1, 2 * DASH):
        for x in (x0, x1 - 1):
            pen.rectangle((x, y, x + 1, min(y + DASH, y1)), fill=(*color, 255))
