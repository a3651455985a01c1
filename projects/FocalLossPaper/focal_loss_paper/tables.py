"""Results as numbers (results.json) and as text (tables.md), beside the paper's."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from typing import Any

import torch

from .rows import Row, Table
from .runs import DIVERGED, FAILED, FINISHED, TERMINAL, RunIndex

METRICS = ("AP", "AP50", "AP75")
SIZES = ("APs", "APm", "APl")
MISSING = "-"


def summarize_row(row: Row, results: Sequence[dict[str, Any]], network: str = "") -> dict[str, Any]:
    """Mean and sample standard deviation over the seeds of a row that finished.

    Args:
        row: with the paper's numbers.
        results: contents of result.json, one per seed.
        network: depth and scale that were trained, which the paper's label may not say.

    Returns:
        ``{"config", "label", "network", "paper", "paper_diverged", "seeds", "diverged", "mean",
        "std"}``: ``seeds`` are the results themselves, ``diverged`` how many of them did, ``mean``
        and ``std`` are by metric, with ``ms`` per image; ``std`` is empty for fewer than two seeds.
    """
    values: dict[str, list[float]] = {}
    for result in results:
        if result["status"] != FINISHED:
            continue
        numbers = {k: result["metrics"][k] for k in METRICS + SIZES if k in result["metrics"]}
        if "seconds_per_image" in result:
            numbers["ms"] = 1000 * result["seconds_per_image"]
        for key, value in numbers.items():
            values.setdefault(key, []).append(value)
    return {
        "config": row.config,
        "label": row.label,
        "network": network,
        "paper": row.published,
        "paper_diverged": row.diverged,
        "seeds": list(results),
        "diverged": sum(result["status"] == DIVERGED for result in results),
        "mean": {key: statistics.fmean(x) for key, x in values.items()},
        "std": {key: statistics.stdev(x) for key, x in values.items() if len(x) > 1},
    }


def summarize(tables: dict[str, Table], book: RunIndex) -> dict[str, Any]:
    """The content of results.json: all rows of all tables, also those not run yet."""
    setting = book.setting
    return {
        "dataset": setting.dataset,
        "iterations": book.run("1b_gamma2", 1).iterations,
        "base": setting.base.name if setting.base else "the paper's",
        "opts": list(setting.opts),
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "tables": {
            name: [
                summarize_row(row, book.results(row.config), _network(book.settings(row.config)))
                for row in table.rows
            ]
            for name, table in tables.items()
        },
    }


def _network(settings: dict[str, Any]) -> str:
    """Depth and test scale in the words of table 1e's labels."""
    depth, scale = (
        settings.get(key, default)
        for key, default in (("MODEL.RESNETS.DEPTH", 50), ("INPUT.MIN_SIZE_TEST", 800))
    )
    return f"ResNet-{depth}, {scale} px"


def tables_markdown(tables: dict[str, Table], summary: dict[str, Any]) -> str:
    """The text of tables.md."""
    iterations, dataset = summary["iterations"], summary["dataset"]
    changes = f" with `{' '.join(summary['opts'])}`" if summary["opts"] else ""
    same = dataset.startswith("coco")
    compare = (
        "The paper's numbers are of minival (val2017) or, in table 1e, test-dev."
        if same
        else "The paper's numbers are of COCO, so compare the order of the rows and the steps "
        "between them, not the values."
    )
    parts = [
        f"# The paper's tables on {dataset}",
        f"Each row: {iterations} iterations on `{dataset}_train`, AP on `{dataset}_val`, in "
        f"percent; mean ± standard deviation over the seeds. Base config: {summary['base']}"
        f"{changes}. {compare} **Bold** is the best of a column; - was not run, or "
        "is not in the paper.",
    ]
    absent = [name for name in tables if not was_run(summary["tables"][name])]
    for name, table in tables.items():
        if name not in absent:
            parts += [f"## Table {name}: {table.title}", table.question]
            parts.append(_table(summary["tables"][name], table))
    if absent:
        parts.append(f"Not run: table {', '.join(absent)}.")
    return "\n\n".join(parts) + "\n"


def was_run(rows: list[dict[str, Any]]) -> bool:
    """Whether a table has results beside those of rows that it shares with another one."""
    return any(seed["config"] == row["config"] for row in rows for seed in row["seeds"])


def _table(rows: list[dict[str, Any]], table: Table) -> str:
    timed = any("ms" in row["paper"] for row in rows)
    keys = [*METRICS, "ms"] if timed else list(METRICS)
    ours = [_column(rows, key, "mean", _ours) for key in keys]
    paper = [_column(rows, key, "paper", _paper) for key in keys]
    labels = [row["label"] for row in rows]
    if timed:  # depth and scale are what the rows differ in
        labels = [label_with_network(row) for row in rows]
    seeds = [str(sum(r["status"] in TERMINAL for r in row["seeds"]) or MISSING) for row in rows]
    where = f"{table.split}; {table.model}"
    head = ["row", *keys, "seeds", *(f"paper {key}" for key in keys)]
    lines = [
        f"In the paper: {where}.",
        "",
        _line(head),
        _line(["---", *["---:"] * (len(head) - 1)]),
    ]
    lines += [_line(cells) for cells in zip(labels, *ours, seeds, *paper, strict=True)]
    return "\n".join(lines)


def label_with_network(row: dict[str, Any]) -> str:
    """The paper's label, and the depth and scale that were trained where they are others."""
    here = row["network"]
    return row["label"] if here in ("", row["label"]) else f"{row['label']} (here {here})"


def _column(
    rows: list[dict[str, Any]], key: str, kind: str, cell: Callable[[dict[str, Any], str], str]
) -> list[str]:
    """Cells of one metric, the best in bold; time has no best, a smaller network always wins.

    Args:
        rows: of one table.
        key: the metric.
        kind: "mean" or "paper": where a row has its number.
        cell: gives the text.
    """
    # As printed: values that look equal are equally good.
    values = [round(row[kind][key], 1) if key in row[kind] else None for row in rows]
    known = [value for value in values if value is not None]
    best = max(known) if len(known) > 1 and key != "ms" else None
    cells = zip([cell(row, key) for row in rows], values, strict=True)
    return [f"**{text}**" if v is not None and v == best else text for text, v in cells]


def _ours(row: dict[str, Any], key: str) -> str:
    if key in row["mean"]:
        text = f"{row['mean'][key]:.1f}"
        if key in row["std"]:
            text += f" ± {row['std'][key]:.1f}"
        if row["diverged"] and key == "AP":
            text += f" ({row['diverged']} of {len(row['seeds'])} diverged)"
        return text
    if row["diverged"]:
        return DIVERGED if key == "AP" else MISSING
    failed = any(result["status"] == FAILED for result in row["seeds"])
    return FAILED if failed and key == "AP" else MISSING


def _paper(row: dict[str, Any], key: str) -> str:
    if row["paper_diverged"]:
        return DIVERGED if key == "AP" else MISSING
    if key not in row["paper"]:
        return MISSING
    return f"{row['paper'][key]:.0f}" if key == "ms" else f"{row['paper'][key]:.1f}"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
