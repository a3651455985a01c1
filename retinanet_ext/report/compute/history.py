"""The course of a training, from the files in its OUTPUT_DIR."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

__all__ = ["mask_results", "read_curves", "read_run"]

MOST_POINTS = 300  # of a curve; more do not fit into its width
LOSSES = ("total_loss", "loss_cls", "loss_box_reg")
SHOWN_RESULTS = ("AP", "AP50", "AP75", "total")


def read_run(folder: str) -> dict[str, Any]:
    """What ``run.json`` says of a training, without paths and names of machines; {} without it."""
    content = _load(os.path.join(folder, "run.json"))
    if not isinstance(content, dict):
        return {}
    kept = {
        key: content[key]
        for key in ("status", "started", "seconds", "iterations", "max_iterations")
        if isinstance(content.get(key), str | int | float)
    }
    machine = content.get("machine")
    if isinstance(machine, dict) and isinstance(machine.get("device"), str):
        kept["device"] = machine["device"]
    train = content.get("datasets")
    rows = train.get("train") if isinstance(train, dict) else None
    if isinstance(rows, list):
        kept["trained_on"] = [
            {"name": str(row.get("name")), "images": row.get("images")}
            for row in rows
            if isinstance(row, dict)
        ]
    kept["resumes"] = _resumes(content.get("resumes"))
    return kept


def read_curves(folder: str, dataset: str = "") -> dict[str, Any]:
    """Losses, learning rate and evaluations over the iterations; {} where nothing is recorded.

    Args:
        folder: OUTPUT_DIR.
        dataset: of several test sets, the one whose results are wanted.

    Returns:
        ``train``: name -> {"iteration", "value"}, of losses and "lr"; ``evaluations``: the same of
        results by their full names; ``resumes``: iterations from which the run continued.
    """
    rows = _rows(os.path.join(folder, "metrics.json"))
    train = {}
    for name in (*LOSSES, *_other_losses(rows), "lr"):
        curve = _curve((row["iteration"], row[name]) for row in rows if name in row)
        if curve["iteration"]:
            train[name] = _thin(curve) if len(curve["iteration"]) > MOST_POINTS else curve
    evaluations: dict[str, Any] = {}
    listed = _load(os.path.join(folder, "evaluations.json"))
    for entry in listed if isinstance(listed, list) else ():
        metrics = entry.get("metrics") if isinstance(entry, dict) else None
        if not isinstance(metrics, dict) or not isinstance(entry.get("iteration"), int):
            continue
        for name, value in metrics.items():
            if name.rpartition("/")[2] in SHOWN_RESULTS and _is_number(value):
                curve = evaluations.setdefault(name, {"iteration": [], "value": []})
                curve["iteration"].append(entry["iteration"] + 1)
                curve["value"].append(float(value))
    evaluations = _of_set(evaluations, dataset)
    if not train and not evaluations:
        return {}
    resumes = _resumes((_load(os.path.join(folder, "run.json")) or {}).get("resumes"))
    return {"train": train, "evaluations": evaluations, "resumes": resumes}


def mask_results(evaluations: Mapping[str, Any], ap: float) -> dict[str, float]:
    """AP, AP50 and AP75 of the masks, from the evaluation that the page is about.

    Args:
        evaluations: of :func:`read_curves`.
        ap: of the boxes on the page; where the last evaluation had another one, or there are no
            masks, there is no result.
    """
    for average in ("", "ema/"):
        boxes, masks = (f"{average}{task}/AP" for task in ("bbox", "segm"))
        if masks in evaluations and math.isclose(_last(evaluations, boxes), ap, abs_tol=1e-6):
            names = ("AP", "AP50", "AP75")
            return {x: _last(evaluations, f"{average}segm/{x}") for x in names}
    return {}


def _last(evaluations: Mapping[str, Any], name: str) -> float:
    return float(evaluations[name]["value"][-1]) if name in evaluations else math.nan


def _of_set(evaluations: dict[str, Any], dataset: str) -> dict[str, Any]:
    """The results of one test set, by their names without it; all where names have none."""
    mine = {
        name.replace(f"{dataset}/", "", 1): curve
        for name, curve in evaluations.items()
        if dataset and name.removeprefix("ema/").startswith(f"{dataset}/")
    }
    return mine or evaluations


def _other_losses(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Losses of a user's own model, as they are named there."""
    names = {name for row in rows for name in row if name.startswith("loss")}
    return sorted(names - set(LOSSES))


def _curve(points: Iterable[tuple[Any, Any]]) -> dict[str, list[Any]]:
    """By iteration; what a run did twice, after it was killed and resumed, counts once."""
    known = {i: float(v) for i, v in points if _is_number(i) and _is_number(v)}
    order = sorted(known)
    return {"iteration": order, "value": [known[i] for i in order]}


def _thin(curve: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """Means of neighbours, as many as are shown."""
    parts = np.array_split(np.arange(len(curve["iteration"])), MOST_POINTS)
    iteration, value = (np.array(curve[key], np.float64) for key in ("iteration", "value"))
    return {
        "iteration": [round(float(iteration[part].mean()), 1) for part in parts],
        "value": [float(value[part].mean()) for part in parts],
    }


def _resumes(rows: Any) -> list[int]:
    if not isinstance(rows, list):
        return []
    found = [row.get("iteration") for row in rows if isinstance(row, dict)]
    return sorted(x for x in found if isinstance(x, int))


def _rows(path: str) -> list[dict[str, Any]]:
    """The lines of ``metrics.json``; a line that was cut off by a kill is left out."""
    rows = []
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            for line in file:
                try:
                    row = json.loads(line)
                except ValueError:
                    continue
                if isinstance(row, dict) and _is_number(row.get("iteration")):
                    rows.append(row)
    except OSError:
        return []
    return rows


def _load(path: str) -> Any:
    try:
        with open(path, encoding="utf-8") as file:
            return json.load(file)
    except (OSError, ValueError, RecursionError):
        return None


def _is_number(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return math.isfinite(value)
