"""Everything that is written about the runs: tables.md, results.json and the figures."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

from retinanet_ext.errors import MissingFileError

from .figures import (
    draw_accuracy_time,
    draw_focal_loss,
    draw_loss_distribution,
    draw_table,
)
from .loss_distribution import collect_samples, loss_curves
from .rows import PROJECT, Table, build_cfg
from .runs import FINISHED, Run, RunIndex, read_json, write_json, write_text
from .tables import summarize, tables_markdown, was_run

RESULTS = "results.json"
TABLES = "tables.md"
# The model whose anchors figure 4 is about, as in the paper: trained with gamma 2.
FIGURE_4_ROW = ("1b_gamma2", 1)
FIGURE_4 = "figure4_loss_distribution.png"
CURVES = "loss_distribution.json"


def write_tables(tables: dict[str, Table], book: RunIndex, folder: Path) -> dict[str, Any]:
    """Write results.json and tables.md; returns the content of the first."""
    summary = summarize(tables, book)
    write_json(folder / RESULTS, summary)
    write_text(folder / TABLES, tables_markdown(tables, summary))
    return summary


def write_figures(
    tables: dict[str, Table],
    summary: dict[str, Any],
    folder: Path,
    before: dict[str, Any] | None = None,
) -> None:
    """Draw figure 1 and, for every table with results, its figures.

    Args:
        tables, summary: see :func:`write_tables`.
        folder: to write to.
        before: the summary at the last call; tables that are the same are not drawn again.

    Raises:
        ImportError: without matplotlib.
    """
    dataset = summary["dataset"]
    if before is None:
        draw_focal_loss(folder / "figure1_focal_loss.png")
    for name, table in tables.items():
        rows = summary["tables"][name]
        if not was_run(rows) or (before is not None and before["tables"][name] == rows):
            continue
        draw_table(folder / f"table_{name}.png", table, rows, dataset)
        if name == "1e":
            draw_accuracy_time(folder / "table_1e_time.png", rows, dataset)


def write_loss_distribution(book: RunIndex, folder: Path) -> bool:
    """Draw figure 4 once its model is trained; the curves are kept beside the model.

    Returns:
        Whether it was drawn.
    """
    run = book.run(*FIGURE_4_ROW)
    curves = read_json(run.folder / CURVES)
    if not curves:
        trained = run.result().get("status") == FINISHED
        if not trained or not (run.folder / "model_final.pth").is_file():
            return False
        curves = _measure_curves(run, book)
    draw_loss_distribution(folder / FIGURE_4, curves, book.setting.dataset)
    return True


def _measure_curves(run: Run, book: RunIndex) -> dict[str, Any]:
    from retinanet_ext.engine.setup import resolve_device

    cfg = build_cfg(FIGURE_4_ROW[0], book.setting)
    resolve_device(cfg)
    samples = collect_samples(cfg, run.folder / "model_final.pth", cfg.DATASETS.TEST[0])
    curves = loss_curves(samples)
    write_json(run.folder / CURVES, curves)
    return curves


class Report:
    """What was written last, so that only what changed is drawn again."""

    def __init__(self, tables: dict[str, Table], book: RunIndex, folder: Path):
        self._tables = tables
        self._book = book
        self._folder = folder
        self._drawn: dict[str, Any] | None = None

    def update(self, last: bool = False) -> None:
        """Write the tables and figures of now; with ``last`` figure 4 too, which takes a while."""
        summary = write_tables(self._tables, self._book, self._folder)
        try:
            write_figures(self._tables, summary, self._folder, self._drawn)
            self._drawn = summary
            if last:
                write_loss_distribution(self._book, self._folder)
        except ImportError as error:  # training continues without pictures
            if last:
                print(f"no figures: {error}", file=sys.stderr)


def publish(folder: Path, dataset: str) -> Path:
    """Copy tables, results and figures to ``results/<dataset>/`` of the project.

    Returns:
        That folder.

    Raises:
        FileNotFoundError: there are none yet.
    """
    if not (folder / TABLES).is_file():
        raise MissingFileError(f"there is no {folder / TABLES} to publish; train something first")
    target = PROJECT / "results" / dataset
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for path in [folder / TABLES, folder / RESULTS, *sorted(folder.glob("*.png"))]:
        shutil.copy(path, target / path.name)
    return target
