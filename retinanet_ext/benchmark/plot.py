"""The ratios as horizontal bars."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import MissingPackageError
from .peers import DETECTRON2, OURS
from .report import format_ratio
from .results import Row

__all__ = ["check_matplotlib", "draw_ratios"]

# Okabe and Ito's palette, which colour-blind readers can tell apart.
BLUE, SKY, ORANGE = "#0072B2", "#56B4E9", "#E69F00"
TEXT, FAINT = "#333333", "#999999"
PEER_TITLE = "Detectron2"
WIDTH, DPI = 9.0, 100  # inches, pixels per inch
ROW_HEIGHT = 0.30  # inches
MARGINS = (0.40, 0.26)  # above a panel, with its title, and below it, in inches
CAPTION_HEIGHT = 0.22  # inches
LABEL_SHARE = 0.37  # of the width


def check_matplotlib() -> None:
    """Raise ImportError, with the fix, where matplotlib is missing."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise MissingPackageError("--plot needs matplotlib: pip install matplotlib") from error


def draw_ratios(rows: Sequence[Row], path: Path, caption: str) -> None:
    """Write a chart of the rows' ratios: times in one panel, memory in another.

    Args:
        rows: those without a ratio are left out.
        path: .png or .svg.
        caption: one line on machine and settings.

    Raises:
        ImportError: without matplotlib.
    """
    check_matplotlib()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = [row for row in rows if row.ratio is not None]
    speeds = [row for row in rows if row.kind != "memory"]
    panels = [p for p in (speeds, [row for row in rows if row.kind == "memory"]) if p]
    heights = [len(panel) * ROW_HEIGHT for panel in panels]
    height = sum(heights) + sum(MARGINS) * len(panels) + CAPTION_HEIGHT
    figure = Figure(figsize=(WIDTH, height), dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    top = height
    for panel, panel_height in zip(panels, heights, strict=True):
        bottom = top - MARGINS[0] - panel_height
        box = (LABEL_SHARE, bottom / height, 0.98 - LABEL_SHARE, panel_height / height)
        _draw_panel(figure.add_axes(box), panel)
        top = bottom - MARGINS[1]
    figure.text(0.98, 0.12 / height, caption, color=FAINT, fontsize=8, ha="right")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def _draw_panel(axes: Any, rows: Sequence[Row]) -> None:
    memory = rows[0].kind == "memory"
    ratios = [row.ratio or 0.0 for row in rows]
    positions = range(len(rows))
    axes.barh(positions, ratios, height=0.62, color=[_color(row) for row in rows])
    longest = max(*ratios, 1.0)
    for y, row in zip(positions, rows, strict=True):
        axes.text(
            (row.ratio or 0.0) + 0.012 * longest,
            y,
            format_ratio(row),
            va="center",
            color=TEXT,
            fontsize=9,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.0},
        )
    axes.axvline(1, color=FAINT, linewidth=1, linestyle=(0, (3, 2)), zorder=0)
    axes.text(1, len(rows) - 0.3, "equal", color=FAINT, fontsize=8, ha="center", va="top")
    axes.set_yticks(positions, [_name(row) for row in rows], fontsize=9, color=TEXT)
    axes.set_xticks([])
    axes.set_xlim(0, longest * 1.22)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.tick_params(length=0)
    for side in ("top", "right", "bottom"):
        axes.spines[side].set_visible(False)
    axes.spines["left"].set_color(FAINT)
    title = f"{OURS} against {PEER_TITLE}: "
    title += "memory (shorter is better)" if memory else "speed (longer is better)"
    axes.set_title(title, loc="left", fontsize=10.5, color=TEXT, fontweight="bold", pad=6)


def _color(row: Row) -> str:
    if row.kind == "memory":
        return ORANGE
    return BLUE if row.against == DETECTRON2 else SKY


def _name(row: Row) -> str:
    name = row.what.removesuffix(": memory")
    return name if row.against == DETECTRON2 else f"{name} (against {row.against})"
