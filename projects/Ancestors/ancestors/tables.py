"""results.json and table.md: accuracy, time and imbalance of each system."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from focal_loss_paper.runs import DIVERGED, FINISHED, Run, read_json

from .own import WINDOWS
from .systems import System

__all__ = ["machine", "summarize", "table_markdown"]

METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR100")


def machine() -> str:
    """The processor and how many cores of it there are."""
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                name = line.partition(":")[2].strip()
                break
    return f"{name}, {os.cpu_count()} cores"


def summarize(
    runs: Mapping[System, Sequence[Run]],
    times: Mapping[str, float],
    shares: Mapping[str, dict[str, Any]],
) -> list[dict[str, Any]]:
    """A row for each system, with all seeds.

    Args:
        runs: of the systems that are detectors.
        times: ms per picture by system's name.
        shares: of :func:`.imbalance.shares_of`, by system's name.
    """
    rows = []
    for system, its_runs in runs.items():
        seeds = [{"seed": run.seed, **run.result()} for run in its_runs if run.result()]
        done = [x for x in seeds if x["status"] == FINISHED]
        numbers = {m: [x["metrics"][m] for x in done if m in x["metrics"]] for m in METRICS}
        row: dict[str, Any] = {
            "name": system.name,
            "label": system.label,
            "year": system.year,
            "answer": system.answer,
            "mean": {m: mean(x) for m, x in numbers.items() if x},
            "std": {m: stdev(x) for m, x in numbers.items() if len(x) > 1},
            "diverged": sum(x["status"] == DIVERGED for x in seeds),
            "minutes": mean(x["seconds"] for x in done) / 60 if done else None,
            "iterations": [x["iterations"] for x in done],
            "ms": times.get(system.name),
            "imbalance": shares.get(system.name),
            "seeds": seeds,
        }
        for run in its_runs:
            row = {**read_json(run.folder / WINDOWS), **row}
        rows.append(row)
    return rows


def table_markdown(
    rows: Sequence[dict[str, Any]], dataset: str, setting: str, skipped: Mapping[str, str]
) -> str:
    """What README quotes: a table of accuracy and time, one of imbalance, one of the cascade."""
    lines = [f"# {dataset}: {setting}", "", f"Time per picture on {machine()}."]
    lines += ["AP: mean ± standard deviation over seeds.", ""]
    lines += ["| | year | AP | AP50 | AP75 | ms per picture | minutes | seeds |"]
    lines += ["|---|---|---|---|---|---|---|---|"]
    for row in rows:
        numbers = [_with_spread(row, metric) for metric in ("AP", "AP50", "AP75")]
        minutes = "" if row["minutes"] is None else f"{row['minutes']:.1f}"
        time = "" if row["ms"] is None else f"{row['ms']:.0f}"
        cells = [row["label"], str(row["year"]), *numbers, time, minutes, str(len(row["seeds"]))]
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", "## What easy background has, before and after the cure", ""]
    lines += ["| | of | before | after | answer to imbalance |", "|---|---|---|---|---|"]
    for row in rows:
        share = row["imbalance"] or {}
        numbers = [f"{100 * share[k]:.1f} %" if k in share else "" for k in ("before", "after")]
        cells = [row["label"], share.get("of", ""), *numbers, row["answer"]]
        lines.append(f"| {' | '.join(cells)} |")
    for row in rows:
        if row.get("windows"):
            lines += ["", "## Windows left after each stage of the cascade", ""]
            lines += ["| stage | windows per picture | share |", "|---|---|---|"]
            first = row["windows"][0]
            for stage, left in enumerate(row["windows"]):
                lines.append(f"| {stage or 'all'} | {left:.0f} | {100 * left / first:.2f} % |")
    if skipped:
        lines += ["", *(f"Not there: {name}, as {why}." for name, why in skipped.items())]
    return "\n".join(lines) + "\n"


def _with_spread(row: dict[str, Any], metric: str) -> str:
    if metric not in row["mean"]:
        return "diverged" if row["diverged"] else "not run"
    spread = f" ± {row['std'][metric]:.1f}" if metric in row["std"] else ""
    return f"{row['mean'][metric]:.1f}{spread}"
