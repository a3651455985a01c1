"""The two figures: accuracy over time, and what became of easy background."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from focal_loss_paper.runs import FINISHED
from focal_loss_paper.style import BLACK, BLUE, FAINT, ORANGE, TEXT, new_figure, plain, save

__all__ = ["draw_accuracy_time", "draw_imbalance"]

TWO_STAGE = ("rcnn", "faster_rcnn")
WINDOWS = ("viola_jones", "overfeat")


def draw_accuracy_time(path: Path, rows: Sequence[dict[str, Any]], dataset: str) -> bool:
    """The paper's figure 2 with these systems: AP over ms per picture, seeds as rings.

    Returns:
        Whether there was something to draw.
    """
    done = [row for row in rows if row["ms"] is not None and "AP" in row["mean"]]
    if not done:
        return False
    figure = new_figure(8.4, 5.2)
    axes = figure.add_subplot()
    plain(axes, f"{dataset}: accuracy and time", "time per picture (ms, log scale)", "AP")
    axes.set_xscale("log")
    for row in done:
        x, y = row["ms"], row["mean"]["AP"]
        color, marker = _look(row["name"])
        seeds = [s["metrics"]["AP"] for s in row["seeds"] if s["status"] == FINISHED]
        if len(seeds) > 1:
            axes.plot([x] * len(seeds), seeds, "o", mfc="none", mec=FAINT, markersize=5)
        axes.plot(x, y, marker, color=color, markersize=9)
    low, high = min(r["ms"] for r in done), max(r["ms"] for r in done)
    axes.set_xlim(low / 1.4, high * 2.2)  # room for names
    top = max(s["metrics"]["AP"] for r in done for s in r["seeds"] if s["status"] == FINISHED)
    axes.set_ylim(0, max(10.0, top * 1.15))
    from matplotlib.ticker import FuncFormatter, LogLocator

    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_locator(LogLocator(subs=()))
    _name_points(figure, axes, done)
    for kind, name in ((WINDOWS[0], "sliding window"), (TWO_STAGE[0], "two stages"), ("", "dense")):
        color, marker = _look(kind)
        axes.plot([], [], marker, color=color, label=name)
    axes.legend(frameon=False, fontsize=9.5, labelcolor=TEXT, loc="lower right")
    save(figure, path)
    return True


def _look(name: str) -> tuple[str, str]:
    if name in WINDOWS:
        return ORANGE, "s"
    return (BLACK, "D") if name in TWO_STAGE else (BLUE, "o")


def _name_points(figure: Any, axes: Any, rows: Sequence[dict[str, Any]]) -> None:
    """Write each label beside its point, at the first place where no other label or point is."""
    from matplotlib.transforms import Bbox

    renderer = figure.canvas.get_renderer()
    figure.draw_without_rendering()  # now the layout is known
    points = [axes.transData.transform((row["ms"], row["mean"]["AP"])) for row in rows]
    taken = [Bbox.from_bounds(x - 6, y - 6, 12, 12) for x, y in points]
    inside = axes.get_window_extent(renderer)
    places = [((10, 0), "left", "center"), ((-10, 0), "right", "center")]
    for up in (12, -12, 24, -24, 36, -36):
        places += [((8, up), "left", "center"), ((-8, up), "right", "center")]
    for row in sorted(rows, key=lambda row: -row["mean"]["AP"]):
        for shift, across, upright in places:
            text = axes.annotate(
                row["label"],
                (row["ms"], row["mean"]["AP"]),
                shift,
                textcoords="offset points",
                ha=across,
                va=upright,
                fontsize=9.5,
                color=TEXT,
            )
            box = text.get_window_extent(renderer)
            fits = inside.contains(box.x0, box.y0) and inside.contains(box.x1, box.y1)
            if fits and not any(box.overlaps(other) for other in taken):
                taken.append(box)
                break
            text.remove()
        else:
            axes.annotate(row["label"], (row["ms"], row["mean"]["AP"]), fontsize=9.5, color=TEXT)


def draw_imbalance(path: Path, rows: Sequence[dict[str, Any]], dataset: str) -> bool:
    """How each system answered imbalance: the share of easy background, before and after.

    Returns:
        Whether there was something to draw.
    """
    done = sorted((row for row in rows if row["imbalance"]), key=lambda row: row["year"])
    if not done:
        return False
    figure = new_figure(9.0, 1.6 + 0.42 * len(done))
    axes = figure.add_subplot()
    for y, row in enumerate(done):
        before, after = (100 * row["imbalance"][key] for key in ("before", "after"))
        axes.plot([before, after], [y, y], "-", color=FAINT, linewidth=1.6, zorder=1)
        axes.plot(before, y, "o", mfc="white", mec=ORANGE, mew=2, markersize=9)
        axes.plot(after, y, "o", color=BLUE, markersize=8)
        text = f"{before:.1f} → {after:.1f} %, {row['imbalance']['of']}"
        axes.annotate(text, (102, y), va="center", fontsize=9, color=TEXT, annotation_clip=False)
    axes.plot([], [], "o", mfc="white", mec=ORANGE, mew=2, markersize=9, label="before")
    axes.plot([], [], "o", color=BLUE, markersize=8, label="after its cure")
    plain(axes, f"{dataset}: easy background", "share of the loss, or of the windows (%)", "")
    axes.set_yticks(range(len(done)), [f"{row['label']} ({row['year']})" for row in done])
    axes.set_ylim(len(done) - 0.5, -0.5)
    axes.set_xlim(-2, 101)
    axes.legend(
        frameon=False, fontsize=9.5, labelcolor=TEXT, loc="lower left", ncols=2,
        bbox_to_anchor=(0.55, 1.0), borderaxespad=0.2,
    )  # fmt: skip
    save(figure, path)
    return True
