"""The chart is a picture with a bar for every ratio."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from retinanet_ext.benchmark import Row
from retinanet_ext.benchmark.plot import BLUE, ORANGE, check_matplotlib, draw_ratios

SPEED = Row("loss", "loss", "time", "detectron2", (9.0,), (1.0,))
MEMORY = Row("loss", "loss: memory", "memory", "detectron2", (100.0,), (50.0,))


def bar_widths(path: Path, color: str) -> list[int]:
    """Length in pixels of the bars of one colour, from the top."""
    pixels = np.asarray(Image.open(path).convert("RGB")).astype(int)
    wanted = [int(color[i : i + 2], 16) for i in (1, 3, 5)]
    widths = (np.abs(pixels - wanted).max(axis=2) < 8).sum(axis=1).tolist()
    return [b for a, b in zip([0, *widths], widths, strict=False) if a == 0 and b > 0]


def test_png_has_readme_width_and_a_bar_per_row(tmp_path):
    path = tmp_path / "new" / "p.png"
    draw_ratios([SPEED, SPEED, MEMORY], path, "caption")
    image = Image.open(path)
    assert image.format == "PNG" and image.width == 900 and 100 < image.height < 500
    assert len(bar_widths(path, BLUE)) == 2 and len(bar_widths(path, ORANGE)) == 1


def test_bars_are_as_long_as_their_ratios(tmp_path):
    slow = Row("loss", "loss", "time", "detectron2", (3.0,), (1.0,))
    draw_ratios([SPEED, slow], tmp_path / "p.png", "caption")
    long, short = bar_widths(tmp_path / "p.png", BLUE)
    assert long / short == pytest.approx(3, rel=0.03)


def test_rows_without_a_ratio_are_left_out(tmp_path):
    lost = Row("m", "m: memory", "memory", "detectron2", (), (1.0,))
    draw_ratios([SPEED, lost], tmp_path / "p.png", "caption")
    assert bar_widths(tmp_path / "p.png", ORANGE) == []


def test_svg_is_written_too(tmp_path):
    draw_ratios([SPEED], tmp_path / "p.svg", "caption")
    assert "<svg" in (tmp_path / "p.svg").read_text()


def test_missing_matplotlib_names_the_way_out(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match="pip install matplotlib"):
        check_matplotlib()
