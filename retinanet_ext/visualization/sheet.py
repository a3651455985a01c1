"""Lay pictures of detections out on one sheet, with captions and a legend."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw

from ..errors import InputError
from .draw import draw_dashed_box
from .labels import load_font, shortened
from .palette import DISTINCT, class_color, ink_on

__all__ = ["CAPTION_PX", "contact_sheet", "tile_caption", "tile_heights"]

BACKGROUND, TEXT, MUTED = "#11151c", "#e8edf4", "#9aa6b8"
MARGIN, GAP = 24, 16
CAPTION_PX, LEGEND_PX, NUMBER_PX = 16, 19, 12
CAPTION_HEIGHT, LEGEND_HEIGHT = 38, 38
SIGN = 26  # width of a sign in the legend
MIN_NAME = 7  # letters; less of a name says nothing
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
    classes: Iterable[int] | None = None,
) -> np.ndarray:
    """Lay pictures out in rows, each above its caption; title and legend come last.

    Args:
        tiles: (H, W, 3) uint8 pictures, RGB; best of the heights that `tile_heights` gives.
        captions: one line per tile.
        class_names: shown in the legend in their colours, and with their numbers where colours
            do not suffice (see :data:`.palette.DISTINCT`).
        title: one line.
        dashed: what dashed boxes are, for the legend; "" leaves them out of it.
        classes: indices of those in the legend, where there are too many for colours; all by
            default.

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
    many = len(class_names) > DISTINCT
    kinds = range(len(class_names)) if classes is None or not many else sorted({*classes})
    words = {k: class_names[k] for k in kinds}
    legend = _legend(words, title, dashed, width, numbered=many)
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


def tile_caption(name: str, facts: str, room: int) -> str:
    """The caption of a tile: as much as fits into ``room`` px, of the file's name its end.

    Args:
        name: of the file.
        facts: what there is to say, which matters more.
        room: width of the tile, px.
    """
    font = load_font(CAPTION_PX)
    left = room - font.getlength(f"    {facts}")
    shown = shortened(name, CAPTION_PX, left, keep="end")
    if len(shown) > MIN_NAME or shown == name:
        return f"{shown}    {facts}" if facts else shown
    return shortened(facts, CAPTION_PX, room)


def _columns(num_tiles: int) -> int:
    """About as many columns as rows, rather more."""
    return math.ceil(math.sqrt(num_tiles))


def _legend(
    names: Mapping[int, str], title: str, dashed: str, width: int, numbered: bool
) -> Image.Image:
    """A strip ``width`` px wide: the title, and signs for classes by index and dashed boxes."""
    words = [*([title] if title else []), *names.values(), *([dashed] if dashed else [])]
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
    kinds = [*names, *([None] if dashed else [])]
    for k, (x, middle) in zip(kinds, places[bool(title) :], strict=True):
        sign_box = (x, middle - 9, x + SIGN, middle + 9)
        if k is None:
            draw_dashed_box(pen, sign_box, dash=4)
            continue
        pen.rounded_rectangle(sign_box, 4, fill=(*class_color(k), 255))
        if numbered:
            centre = (x + SIGN / 2, middle)
            pen.text(centre, str(k + 1), ink_on(class_color(k)), load_font(NUMBER_PX), anchor="mm")
    return strip
