"""A sheet shows every picture once, in rows of equal width."""

from __future__ import annotations

import numpy as np
import pytest

from retinanet_ext.visualization.labels import load_font
from retinanet_ext.visualization.palette import DISTINCT, class_color
from retinanet_ext.visualization.sheet import (
    CAPTION_PX,
    GAP,
    MARGIN,
    contact_sheet,
    tile_caption,
    tile_heights,
)


def plain(height: int, width: int, value: int) -> np.ndarray:
    return np.full((height, width, 3), value, dtype=np.uint8)


@pytest.mark.parametrize("width", [800, 1600])
def test_rows_are_equally_wide(width):
    shapes = [(256, 320), (256, 256), (480, 360), (300, 300), (100, 400), (256, 320)]
    heights = tile_heights(shapes, width)
    drawn = [round(w * h / original) for (original, w), h in zip(shapes, heights, strict=True)]
    for row in (drawn[:3], drawn[3:]):
        assert sum(row) + 2 * GAP + 2 * MARGIN == pytest.approx(width, abs=4)
    assert heights[0] == heights[1] == heights[2]


def test_last_row_is_not_blown_up():
    heights = tile_heights([(100, 100)] * 7)  # 3 + 3 + 1
    assert len(set(heights)) == 1


@pytest.mark.parametrize("num", [1, 2, 3, 5, 6])
def test_every_tile_is_shown_once_and_apart(num):
    tiles = [plain(60 + i, 200, 200 + i) for i in range(num)]
    sheet = contact_sheet(tiles, [""] * num, ["disc"])
    for i, tile in enumerate(tiles):
        rows, columns = np.nonzero((sheet == 200 + i).all(axis=2))
        solid = sheet[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
        assert np.array_equal(solid, tile)


def test_caption_title_and_class_colors_appear():
    tiles = [plain(60, 300, 200)] * 2
    bare = contact_sheet(tiles, ["", ""], ["disc", "bar"])
    for k in (0, 1):
        assert (bare == class_color(k)).all(axis=2).sum() > 200
    captioned = contact_sheet(tiles, ["a.png", ""], ["disc", "bar"])
    titled = contact_sheet(tiles, ["", ""], ["disc", "bar"], title="balls_val")
    assert not np.array_equal(bare, captioned) and not np.array_equal(bare, titled)


def test_long_legend_wraps_and_keeps_the_width():
    tiles = [plain(60, 300, 200)]
    short = contact_sheet(tiles, [""], ["disc"])
    long = contact_sheet(tiles, [""], [f"class number {k}" for k in range(12)])
    assert long.shape[1] == short.shape[1] and long.shape[0] > short.shape[0]
    for k in range(12):
        assert (long == class_color(k)).all(axis=2).sum() > 200


@pytest.mark.parametrize("tiles,captions", [([], []), ([plain(9, 9, 0)], [])])
def test_a_caption_per_tile_is_demanded(tiles, captions):
    with pytest.raises(ValueError, match="one caption per tile"):
        contact_sheet(tiles, captions, ["disc"])


def test_a_legend_of_many_classes_shows_those_in_the_picture_by_number():
    tiles, names = [plain(60, 300, 200)], [f"class {k}" for k in range(DISTINCT + 5)]
    sheet = contact_sheet(tiles, [""], names, classes=[3, 14])
    for k in range(len(names)):
        assert (sheet == class_color(k)).all(axis=2).any() == (k in (3, 14))
    few = contact_sheet(tiles, [""], names[:DISTINCT], classes=[3])
    assert all((few == class_color(k)).all(axis=2).any() for k in range(DISTINCT))


@pytest.mark.parametrize("room", [60, 200, 320, 900])
def test_captions_fit_their_tiles(room: int):
    name, facts = "a_rather_long_name_of_a_file_0123.jpg", "9 x 9, 2 boxes"
    caption = tile_caption(name, facts, room)
    assert load_font(CAPTION_PX).getlength(caption) <= room
    assert (room == 900) == caption.startswith("a_rather")
    assert room < 320 or (facts in caption and "23.jpg" in caption)
