"""The figures: the loss itself, a dot plot per table, accuracy against time, loss distribution."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from retinanet_ext.losses import focal_loss

from .rows import Table
from .runs import FINISHED
from .style import BLACK, BLUE, FAINT, GREEN, ORANGE, PINK, TEXT, new_figure, plain, save
from .tables import label_with_network

GAMMAS = (0.0, 0.5, 1.0, 2.0, 5.0)
# From cross entropy in black on; dashes tell them apart without colour.
STYLES = ((BLACK, "-"), (BLUE, "-"), (GREEN, "--"), (ORANGE, "-"), (PINK, "-."))


def draw_focal_loss(path: Path) -> None:
    """Figure 1: FL(p_t) for gamma 0 (cross entropy) to 5, without alpha."""
    figure = new_figure(6.4, 4.4)
    axes = figure.add_subplot()
    probability = torch.linspace(0.004, 0.999, 400, dtype=torch.float64)
    for gamma, (color, dashes) in zip(GAMMAS, STYLES, strict=True):
        loss = focal_loss(torch.logit(probability), torch.ones(()), alpha=-1, gamma=gamma)
        label = rf"$\gamma$ = {gamma:g}" + (" (cross entropy)" if gamma == 0 else "")
        axes.plot(probability, loss, color=color, linestyle=dashes, linewidth=2, label=label)
    axes.axvspan(0.6, 1, color=FAINT, alpha=0.12, linewidth=0)
    axes.text(0.8, 1.55, "well-classified\nexamples", ha="center", color=TEXT, fontsize=9.5)
    plain(axes, "", "probability of the ground truth, $p_t$", "loss")
    axes.set_title(r"Focal loss  $-(1 - p_t)^\gamma\;\log\,p_t$", loc="left", color=TEXT, pad=8)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 5)
    axes.legend(frameon=False, fontsize=9.5, labelcolor=TEXT, loc="upper right")
    save(figure, path)


def draw_table(path: Path, table: Table, rows: Sequence[dict[str, Any]], dataset: str) -> bool:
    """A dot per row: ours with its seeds and standard deviation, and the paper's in a panel beside.

    Args:
        path: of the picture.
        table: the paper's.
        rows: of results.json.
        dataset: for the title.

    Returns:
        Whether there was something to draw: rows that finished or diverged.
    """
    if not any(row["mean"] or row["diverged"] for row in rows):
        return False
    figure = new_figure(9.0, 1.5 + 0.3 * len(rows))
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(3, 2))
    for y, row in enumerate(rows):
        _draw_ours(left, y, row)
        if "AP" in row["paper"]:
            right.plot(row["paper"]["AP"], y, "D", color=ORANGE, markersize=6)
        elif row["paper_diverged"]:
            _say(right, y, "diverged")
    plain(left, f"Table {table.name} on {dataset}", "AP, mean ± std over seeds; rings: seeds")
    plain(right, "in the paper", f"AP on COCO {table.split}")
    names = [label_with_network(row) if table.name == "1e" else row["label"] for row in rows]
    left.set_yticks(range(len(rows)), names)
    left.set_ylim(len(rows) - 0.5, -0.5)
    for axes in (left, right):
        axes.margins(x=0.08)
        low, high = axes.get_xlim()
        if high - low < 1:  # no more precise than the numbers are
            axes.set_xlim((low + high) / 2 - 0.5, (low + high) / 2 + 0.5)
        axes.grid(axis="y", visible=False)
        for y in range(len(rows)):
            axes.axhline(y, color="#F0F0F0", linewidth=0.8, zorder=0)
    right.tick_params(axis="y", length=0)
    save(figure, path)
    return True


def _draw_ours(axes: Any, y: int, row: dict[str, Any]) -> None:
    seeds = [r["metrics"]["AP"] for r in row["seeds"] if r["status"] == FINISHED]
    if seeds:
        spread = row["std"].get("AP")
        axes.errorbar(
            row["mean"]["AP"], y, xerr=spread, fmt="o", color=BLUE, markersize=6, capsize=3
        )
        if len(seeds) > 1:
            axes.plot(seeds, [y + 0.28] * len(seeds), "o", mfc="none", mec=FAINT, markersize=4)
    if row["diverged"]:
        _say(axes, y, f"{row['diverged']} of {len(row['seeds'])} diverged" if seeds else "diverged")
    elif not seeds:
        _say(axes, y, "not run")


def _say(axes: Any, y: int, text: str) -> None:
    """A word in place of a dot, at the left edge."""
    place = axes.get_yaxis_transform()  # x in shares of the axes
    axes.text(0.03, y, text, transform=place, va="center", fontsize=9, color=FAINT, style="italic")


def draw_accuracy_time(path: Path, rows: Sequence[dict[str, Any]], dataset: str) -> bool:
    """Figure 2 and table 1e: AP against the time of one image; a line per depth.

    Returns:
        Whether there was something to draw: rows of table 1e that finished.
    """
    done = [row for row in rows if {"AP", "ms"} <= row["mean"].keys()]
    if not done:
        return False
    figure = new_figure(9.0, 4.0)
    left, right = figure.subplots(1, 2)
    _draw_speed(left, done, "mean", "network")
    _draw_speed(right, rows, "paper", "label")
    plain(left, f"Table 1e on {dataset}, this machine", "time per image (ms)", "AP")
    plain(right, "in the paper, Nvidia M40", "time per image (ms)", "AP on COCO test-dev")
    for axes in (left, right):
        axes.margins(0.1, 0.12)
        axes.legend(frameon=False, fontsize=9, labelcolor=TEXT, loc="lower right")
    save(figure, path)
    return True


def _draw_speed(axes: Any, rows: Sequence[dict[str, Any]], which: str, name: str) -> None:
    from matplotlib.patheffects import withStroke

    outline = [withStroke(linewidth=2.5, foreground="white")]  # numbers may lie on a line
    depths = list(dict.fromkeys(row[name].partition(",")[0] for row in rows))
    for depth, color, marker in zip(depths, (BLUE, ORANGE), "os", strict=False):
        line = [row for row in rows if row[name].startswith(f"{depth},")]
        x, y = ([row[which][key] for row in line] for key in ("ms", "AP"))
        axes.plot(x, y, marker=marker, color=color, linewidth=1.6, label=depth)
        for i, (row, a, b) in enumerate(zip(line, x, y, strict=True)):
            # The deeper network is mostly the better one, but not at the smallest scale.
            above = color == ORANGE and i > 0
            axes.annotate(
                row[name].split()[-2],
                (a, b),
                (-5, 5) if above else (6, -10),
                textcoords="offset points",
                fontsize=8,
                color=color,
                ha="right" if above else "left",
                path_effects=outline,
            )


def draw_loss_distribution(path: Path, curves: dict[str, Any], dataset: str) -> None:
    """Figure 4: cumulative normalised loss of foreground and background anchors.

    Args:
        path: of the picture.
        curves: see :func:`focal_loss_paper.loss_distribution.loss_curves`.
        dataset: for the title.
    """
    figure = new_figure(9.0, 4.2)
    for axes, (kind, by_gamma) in zip(figure.subplots(1, 2), curves.items(), strict=True):
        for (gamma, values), (color, dashes) in zip(by_gamma.items(), STYLES, strict=False):
            x = np.linspace(0, 1, len(values))
            axes.plot(
                x, values, color=color, linestyle=dashes, linewidth=2, label=rf"$\gamma$ = {gamma}"
            )
        plain(
            axes,
            f"{kind.capitalize()} anchors of {dataset}",
            f"share of the {kind} anchors, easiest first",
            "share of their loss",
        )
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1.01)
        axes.legend(frameon=False, fontsize=9.5, labelcolor=TEXT, loc="upper left")
    save(figure, path)
