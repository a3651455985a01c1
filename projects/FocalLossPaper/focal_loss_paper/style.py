"""What the figures share: matplotlib when it is needed, colours, plain axes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from retinanet_ext.errors import MissingPackageError

# Okabe and Ito's palette, which colour-blind readers can tell apart.
BLUE, ORANGE, GREEN, PINK, BLACK = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#222222"
TEXT, FAINT, GRID = "#333333", "#8A8A8A", "#E4E4E4"
DPI = 100


def check_matplotlib() -> None:
    """Raise ImportError, with the fix, where matplotlib is missing."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise MissingPackageError("the figures need matplotlib: pip install matplotlib") from error


def new_figure(width: float, height: float) -> Any:
    """An empty figure that keeps its parts apart; sizes in inches.

    Raises:
        ImportError: without matplotlib.
    """
    check_matplotlib()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=DPI, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def plain(axes: Any, title: str = "", x: str = "", y: str = "") -> None:
    """Two spines, light grid, labels."""
    axes.set_title(title, loc="left", fontsize=11, color=TEXT, fontweight="bold", pad=8)
    axes.set_xlabel(x, fontsize=10, color=TEXT)
    axes.set_ylabel(y, fontsize=10, color=TEXT)
    axes.tick_params(colors=TEXT, labelsize=9, length=3)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(FAINT)
    axes.grid(color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)


def save(figure: Any, path: Path) -> None:
    """Write the picture; the same content gives the same file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Software": None})
