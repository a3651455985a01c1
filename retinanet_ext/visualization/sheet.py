"""Lay pictures of detections out on one sheet, with captions and a legend."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from ..errors import InputError
from .draw import class_color, draw_dashed_box, load_font

__all__ = ["contact_sheet", "tile_heights"]

BACKGROUND, TEXT, MUTED = "#11151c", "#e8edf4", "#9aa6b8"
MARGIN, GAP = 24, 16
CAPTION_PX, LEGEND_PX = 16, 19
CAPTION_HEIGHT, LEGEND_HEIGHT = 38, 38
SIGN = 22  # width of a sign in the legend
GROUND_TRUTH = "ground truth"


def tile_heights(shapes: Sequence[tuple[int, ...]], width: int = 1600) -> list[int]:
    """Height at which to draw each picture so that every row of a sheet is equally wide.

    Args:
        shapes: (H, W, ...) of each picture, in the order of the sheet.
        width: of the sheet, px.
    """
    columns = _columns(len(shapes))
    heights: list[int] = []
    for start in range(0, len(shapes), columns):
        row = shapes[start : start + columns]
        room = width - 2 * MARGIN - GAP * (len(row) - 1)
        height = room / sum(shape[1] / shape[0] for shape in row)
        if len(row) < columns and heights:  # a last row with few pictures is not blown up
            height = min(height, heights[0])
        heights += [max(round(height), 1)] * len(row)
    return heights


def contact_sheet(
    tiles: Sequence[np.ndarray],
    captions: Sequence[str],
    class_names: Sequence[str],
    title: str = "",
    dashed: str = GROUND_TRUTH,
) -> np.ndarray:
    """Lay pictures out in rows, each above its caption; title and legend come last.

    Args:
        tiles: (H, W, 3) uint8 pictures, RGB; best of the heights that `tile_heights` gives.
        captions: one line per tile.
        class_names: shown in the legend in their colours, with the sign for dashed boxes.
        title: one line.
        dashed: what dashed boxes are, for the legend; "" leaves them out of it.

    Returns:
        (H', W', 3) uint8, RGB.

    Raises:
        ValueError: no tiles, or not one caption for each.
    """
    if not tiles or len(tiles) != len(captions):
        raise InputError(
            f"A sheet needs one caption per tile, got {len(tiles)} tiles and {len(captions)} "
            "captions; it needs at least one tile"
        )
    columns = _columns(len(tiles))
    rows = [range(i, min(i + columns, len(tiles))) for i in range(0, len(tiles), columns)]
    width = max(sum(tiles[i].shape[1] + GAP for i in row) - GAP for row in rows)
    heights = [max(tiles[i].shape[0] for i in row) + CAPTION_HEIGHT for row in rows]
    legend = _legend(class_names, title, dashed, width)
    size = (width + 2 * MARGIN, sum(heights) + legend.height + 2 * MARGIN)
    sheet = Image.new("RGB", size, BACKGROUND)
    pen = ImageDraw.Draw(sheet)
    y = MARGIN
    for row, height in zip(rows, heights, strict=True):
        x = MARGIN
        for i in row:
            sheet.paste(Image.fromarray(tiles[i]), (x, y))
            pen.text(
                (x, y + height - CAPTION_HEIGHT + 8), captions[i], MUTED, load_font(CAPTION_PX)
            )
            x += tiles[i].shape[1] + GAP
        y += height
    sheet.paste(legend, (MARGIN, y + MARGIN // 3))
    return np.asarray(sheet)


def _columns(num_tiles: int) -> int:
    """About as many columns as rows, rather more."""
    return math.ceil(math.sqrt(num_tiles))


def _legend(class_names: Sequence[str], title: str, dashed: str, width: int) -> Image.Image:
    """A strip ``width`` px wide: the title, and signs for the classes and dashed boxes."""
    words = [*([title] if title else []), *class_names, *([dashed] if dashed else [])]
    fonts = [load_font(LEGEND_PX, bold=bool(title) and i == 0) for i in range(len(words))]
    signs = [0 if title and i == 0 else SIGN + 8 for i in range(len(words))]
    places: list[tuple[int, int]] = []
    x = y = 0
    for word, font, sign in zip(words, fonts, signs, strict=True):
        length = sign + round(font.getlength(word))
        if x and x + length > width:
            x, y = 0, y + LEGEND_HEIGHT
        places.append((x, y + LEGEND_HEIGHT // 2))
        x += length + 28
    strip = Image.new("RGB", (width, y + LEGEND_HEIGHT), BACKGROUND)
    pen = ImageDraw.Draw(strip, "RGBA")
    for word, font, sign, (x, middle) in zip(words, fonts, signs, places, strict=True):
        pen.text((x + sign, middle), word, TEXT, font, anchor="lm")
    for k, (x, middle) in enumerate(places[bool(title) :]):
        _draw_sign(pen, (x, middle - 9, x + SIGN, middle + 9), k if k < len(class_names) else None)
    return strip


def _draw_sign(
    pen: ImageDraw.ImageDraw, box: tuple[int, int, int, int], class_index: int | None
) -> None:
    """A patch in the colour of the class; a dashed box if there is none."""
    if class_index is None:
        draw_dashed_box(pen, box, dash=4)
    else:
        pen.rounded_rectangle(box, 4, fill=(*class_color(class_index), 255))
