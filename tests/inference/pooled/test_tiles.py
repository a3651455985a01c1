"""Tiles cover a picture as those of SAHI do."""

from __future__ import annotations

import numpy as np
import pytest

from retinanet_ext.errors import InputError
from retinanet_ext.inference.pooled.tiles import Tiling, tile_grid

# (height, width, size, ratio of overlap in y and x) -> what sahi.slicing.get_slice_bboxes gives
OF_SAHI = {
    (1000, 1000, (400, 400), 0.2, 0.2): """0 0 400 400, 320 0 720 400, 600 0 1000 400,
        0 320 400 720, 320 320 720 720, 600 320 1000 720,
        0 600 400 1000, 320 600 720 1000, 600 600 1000 1000""",
    (300, 900, (400, 320), 0.2, 0.2): "0 0 320 300, 256 0 576 300, 512 0 832 300, 580 0 900 300",
    (200, 300, (512, 512), 0.2, 0.2): "0 0 300 200",
    (513, 512, (512, 512), 0.2, 0.2): "0 0 512 512, 0 1 512 513",
    (997, 1531, (320, 640), 0.1, 0.3): """0 0 640 320, 448 0 1088 320, 891 0 1531 320,
        0 288 640 608, 448 288 1088 608, 891 288 1531 608,
        0 576 640 896, 448 576 1088 896, 891 576 1531 896,
        0 677 640 997, 448 677 1088 997, 891 677 1531 997""",
}


def grid(height, width, size, ratio_y, ratio_x):
    overlap = int(ratio_y * size[0]), int(ratio_x * size[1])
    return [list(tile) for tile in tile_grid(height, width, size, overlap)]


@pytest.mark.parametrize("arguments", OF_SAHI)
def test_tiles_are_those_of_sahi(arguments):
    expected = [[int(x) for x in tile.split()] for tile in OF_SAHI[arguments].split(",")]
    assert grid(*arguments) == expected


def test_tiles_of_any_size_are_those_of_an_installed_sahi():
    slicing = pytest.importorskip("sahi.slicing")
    rng = np.random.default_rng(0)
    for _ in range(200):
        height, width = rng.integers(1, 2000, 2).tolist()
        size = tuple(rng.integers(64, 700, 2).tolist())
        ratios = rng.uniform(0, 0.9, 2).tolist()
        expected = slicing.get_slice_bboxes(height, width, *size, False, *ratios)
        assert grid(height, width, size, *ratios) == expected


def test_every_pixel_is_in_a_tile_and_every_tile_in_the_picture():
    rng = np.random.default_rng(1)
    for _ in range(100):
        height, width = rng.integers(1, 700, 2).tolist()
        tiling = Tiling(100, 150, *rng.integers(0, 99, 2).tolist())
        seen = np.zeros((height, width), dtype=bool)
        for tile in tiling.tiles_of(height, width):
            assert 0 <= tile.left < tile.right <= width and 0 <= tile.top < tile.bottom <= height
            assert tile.height == min(height, 100) and tile.width == min(width, 150)
            seen[tile.top : tile.bottom, tile.left : tile.right] = True
        assert seen.all()
        assert tiling.fits(height, width) == (len(tiling.tiles_of(height, width)) == 1)


@pytest.mark.parametrize(("overlap_y", "overlap_x"), [(100, 0), (0, 150), (0, 151), (-1, 0)])
def test_an_overlap_that_leaves_no_step_is_refused(overlap_y, overlap_x):
    with pytest.raises(InputError, match="make the overlap smaller than the tile"):
        Tiling(100, 150, overlap_y, overlap_x)
