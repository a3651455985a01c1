"""Everything that is written about the comparison."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from focal_loss_paper.runs import FINISHED, Run, read_json, write_json, write_text

from retinanet_ext.errors import MissingFileError

from .figures import draw_accuracy_time, draw_imbalance
from .imbalance import shares_of
from .measure import load_detector, milliseconds
from .own import pictures_of
from .plan import Comparison
from .systems import PROJECT, System, by_name
from .tables import machine, summarize, table_markdown

__all__ = ["FILES", "measure_all", "publish", "write_report"]

FILES = ("table.md", "results.json", "figure2.png", "imbalance.png")
TIMES, SHARES = "times.json", "imbalance.json"


def measure_all(comparison: Comparison, runs: Mapping[System, Sequence[Run]]) -> None:
    """Measure times, all again where one is missing, and shares of easy background.

    Both are of the first seed that finished.
    """
    first = {system: _first(its_runs) for system, its_runs in runs.items()}
    trained = {system: run for system, run in first.items() if run is not None}
    known = read_json(comparison.folder / TIMES)
    names = {system.name: run.folder.parent.name for system, run in trained.items()}
    if trained and known.get("runs") != names:
        comparison.say(f"measuring the time per picture of {len(trained)} systems")
        detectors = {
            system.name: load_detector(system, run, _proposals(comparison, system, run))
            for system, run in trained.items()
        }
        times = milliseconds(detectors, pictures_of(f"{comparison.dataset}_val"))
        write_json(comparison.folder / TIMES, {"runs": names, "machine": machine(), "ms": times})
    for system, run in trained.items():
        path = run.folder / SHARES
        if not path.is_file():
            write_json(path, shares_of(system, run, comparison.dataset))


def write_report(
    comparison: Comparison, runs: Mapping[System, Sequence[Run]], skipped: Mapping[str, str]
) -> None:
    """Write :data:`FILES` about what is trained so far."""
    times = read_json(comparison.folder / TIMES).get("ms", {})
    shares: dict[str, dict[str, Any]] = {}
    for system, its_runs in runs.items():
        run = _first(its_runs)
        if run is not None:
            shares[system.name] = read_json(run.folder / SHARES)
    rows = summarize(runs, times, shares)
    length = (
        f"{comparison.iterations} iterations"
        if comparison.iterations
        else f"{comparison.minutes:g} minutes of training each"
    )
    table, results, figure2, imbalance = (comparison.folder / name for name in FILES)
    write_text(table, table_markdown(rows, comparison.dataset, length, skipped))
    write_json(
        results,
        {
            "dataset": comparison.dataset,
            "length": length,
            "opts": list(comparison.opts),
            "machine": machine(),
            "skipped": dict(skipped),
            "systems": rows,
        },
    )
    try:
        draw_accuracy_time(figure2, rows, comparison.dataset)
        draw_imbalance(imbalance, rows, comparison.dataset)
    except ImportError as error:  # the tables are there without pictures
        print(f"no figures: {error}", file=sys.stderr)


def publish(folder: Path, dataset: str) -> Path:
    """Copy :data:`FILES` to ``results/<dataset>/`` of the project; returns that folder.

    Raises:
        MissingFileError: there are none yet.
    """
    if not (folder / FILES[0]).is_file():
        raise MissingFileError(f"there is no {folder / FILES[0]} to publish; train something first")
    target = PROJECT / "results" / dataset
    target.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        if (folder / name).is_file():
            shutil.copy(folder / name, target / name)
    return target


def _first(runs: Sequence[Run]) -> Run | None:
    return next((run for run in runs if run.result().get("status") == FINISHED), None)


def _proposals(comparison: Comparison, system: System, run: Run) -> Run | None:
    if not system.proposals:
        return None
    return comparison.run(by_name(system.proposals), run.seed, plan=False)
