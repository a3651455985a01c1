"""Grey pictures with one rectangle per colour, and where its pixels are afterwards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from detectron2.structures import BoxMode
from PIL import Image, ImageDraw

COLORS = ((230, 40, 40), (40, 230, 40), (40, 40, 230))
HEIGHT, WIDTH = 120, 160


def record(folder: Path, rectangles: list[tuple[int, list[int], dict]], name: str = "a") -> dict:
    """Write a picture; return its dataset dict.

    Args:
        folder: for the file.
        rectangles: colour, which is the class too; XYXY box in px; more of the annotation.
        name: of the file.
    """
    image = Image.new("RGB", (WIDTH, HEIGHT), (110, 110, 110))
    annotations: list[dict[str, Any]] = []
    for color, (x0, y0, x1, y1), extra in rectangles:
        ImageDraw.Draw(image).rectangle((x0, y0, x1 - 1, y1 - 1), fill=COLORS[color])
        # Floats: Detectron2's transforms round boxes of whole numbers down to whole pixels.
        bbox = [float(x) for x in (x0, y0, x1 - x0, y1 - y0)]
        box = {"bbox": bbox, "bbox_mode": BoxMode.XYWH_ABS}
        annotations.append({**box, "category_id": color, "iscrowd": 0, **extra})
    path = folder / f"{name}.png"
    image.save(path)
    size = {"height": HEIGHT, "width": WIDTH, "image_id": name}
    return {"file_name": str(path), **size, "annotations": annotations}


def extent(image: np.ndarray, color: int) -> list[int] | None:
    """XYXY of the pixels of a colour in an RGB image (H, W, 3); None without any."""
    channels = image.astype(float)
    others = np.delete(channels, color, axis=2).max(axis=2)
    rows, columns = np.nonzero(channels[:, :, color] - others > 75)
    if len(rows) == 0:
        return None
    return [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
