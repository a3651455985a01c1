"""The results as a table, and as json with every sample."""

from __future__ import annotations

import math
import platform
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from tabulate import tabulate

from ..engine.records.provenance import machine, versions
from .peers import DETECTRON2, OURS, TORCHVISION
from .results import Row, quartiles
from .runner import Benchmark
from .settings import Settings

__all__ = ["as_json", "describe_run", "format_ratio", "table"]

UNITS = {"time": "s", "rate": "s", "memory": "bytes"}
CPU = "of CPU time"


def table(bench: Benchmark, config_name: str) -> str:
    """Rows, then notes, agreement, run, machine and versions as text."""
    blocks = [_rows_table(bench.rows)] if bench.rows else ["nothing was measured"]
    notes = [f"{row.what}: {row.note}" for row in bench.rows if row.note]
    notes += [f"{row.what}: not measured: {row.absent}" for row in bench.rows if row.absent]
    if any(row.against == TORCHVISION for row in bench.rows):
        notes.append("torchvision: a model of its own, with other weights, so only times compare")
    if any(row.kind == "memory" for row in bench.rows):
        notes.append("memory: the highest above model and inputs, in a process of its own")
    blocks.append("\n".join(f"  {note}" for note in dict.fromkeys(notes)))
    facts = [f"agreement: {name}: {_differences(d)}" for name, d in bench.agreement.items()]
    facts.append(f"run: {describe_run(bench, config_name)}")
    facts.append(f"system: {platform.platform()}")
    facts.append("versions: " + ", ".join(f"{k} {v}" for k, v in versions().items() if v))
    return "\n\n".join([*(block for block in blocks if block), "\n".join(facts)])


def _rows_table(rows: Sequence[Row]) -> str:
    """One table; each peer's rows stand under its own header."""
    of_cpu = [CPU] if any(row.cpu_ratio is not None for row in rows) else []
    columns = ["ratio", "quartiles", *of_cpu]
    cells: list[list[str]] = []
    for peer in (DETECTRON2, TORCHVISION):
        chosen = [row for row in rows if row.against == peer]
        if chosen and cells:
            cells += [[""] * (3 + len(columns)), ["what", peer, OURS, *columns]]
        cells += [_row_cells(row)[: 3 + len(columns)] for row in chosen]
    first = DETECTRON2 if any(row.against == DETECTRON2 for row in rows) else TORCHVISION
    headers = ["what", first, OURS, *columns]
    align = ("left", *["right"] * (len(headers) - 1))
    return tabulate(cells, headers, tablefmt="simple", colalign=align, disable_numparse=True)


def _row_cells(row: Row) -> list[str]:
    return [
        row.what,
        _value(row, row.theirs),
        "absent" if row.absent else _value(row, row.ours),
        format_ratio(row),
        _spread(row),
        "" if row.cpu_ratio is None else f"{row.cpu_ratio:.2f}x",
    ]


def _spread(row: Row) -> str:
    """Quartiles of the ratio, the way :func:`format_ratio` puts it."""
    if row.ratio is None or row.ratio_quartiles is None:
        return ""
    low, high = row.ratio_quartiles
    if row.kind != "memory" and row.ratio < 1:
        low, high = 1 / high, 1 / low
    return f"{low:.2f}-{high:.2f}"


def format_ratio(row: Row) -> str:
    """Such as ``"9.3x faster"``, ``"1.20x slower"`` or ``"0.40x memory"``."""
    ratio = row.ratio
    if ratio is None:
        return "-"
    if row.kind == "memory":
        return f"{_times(ratio)} memory"
    return f"{_times(ratio)} faster" if ratio >= 1 else f"{_times(1 / ratio)} slower"


def _times(ratio: float) -> str:
    return f"{ratio:.1f}x" if ratio >= 2 else f"{ratio:.2f}x"


def _value(row: Row, samples: Sequence[float]) -> str:
    if not samples:
        return "out of memory"
    median = statistics.median(samples)
    if row.kind == "memory":
        size = (
            f"{median / 2**20:,.1f} MiB" if median < 100 * 2**20 else f"{median / 2**20:,.0f} MiB"
        )
        return f"{size} ({median / row.logits_bytes:.2f}x logits)" if row.logits_bytes else size
    if row.kind == "rate":
        return f"{_digits(row.images / median)} images/s"
    return f"{_digits(median)} s" if median >= 1 else f"{_digits(median * 1e3)} ms"


def _digits(value: float) -> str:
    """Three digits, or as many as stand before the point."""
    decimals = max(0, 2 - math.floor(math.log10(value))) if value > 0 else 2
    return f"{value:,.{min(decimals, 3)}f}"


def _differences(differences: Mapping[str, float]) -> str:
    return ", ".join(f"{what} {value:.1e}" for what, value in differences.items())


def _machine(settings: Settings) -> dict[str, Any]:
    return {**machine(settings.device), "threads": settings.threads}


def describe_run(bench: Benchmark, config_name: str) -> str:
    """What ran and where, in one line."""
    settings, facts = bench.settings, _machine(bench.settings)
    height, width = settings.size
    threads = f"{facts['threads']} of {facts['cores']} cores"
    where = facts["device"] if settings.device.startswith("cuda") else f"{facts['cpu']}, {threads}"
    return (
        f"{config_name}, {height} x {width}, batch {settings.batch}, {settings.num_classes} "
        f"classes, {settings.num_gt} gt per image, {settings.precision}, {where}"
    )


def as_json(bench: Benchmark, config_name: str, complete: bool) -> dict[str, Any]:
    """Everything that was measured, with raw samples in seconds and bytes."""
    settings = bench.settings
    return {
        "complete": complete,
        "config": config_name,
        "settings": {
            "size": list(settings.size),
            "batch": settings.batch,
            "classes": settings.num_classes,
            "gt": settings.num_gt,
            "images": settings.images,
            "repeats": settings.repeats,
            "device": settings.device,
            "precision": settings.precision,
            "yaml": settings.config,
        },
        "machine": _machine(settings),
        "versions": versions(),
        "agreement": bench.agreement,
        "rows": [_row_json(row) for row in bench.rows],
    }


def _row_json(row: Row) -> dict[str, Any]:
    return {
        "task": row.task,
        "what": row.what,
        "kind": row.kind,
        "unit": UNITS[row.kind],
        "against": row.against,
        "images": row.images,
        "logits_bytes": row.logits_bytes,
        "theirs": _samples_json(row.theirs),
        "ours": _samples_json(row.ours),
        "ratio": row.ratio,
        "ratio_quartiles": row.ratio_quartiles,
        "note": row.note,
        "theirs_cpu": _samples_json(row.theirs_cpu),
        "ours_cpu": _samples_json(row.ours_cpu),
        "cpu_ratio": row.cpu_ratio,
        "absent": row.absent,
    }


def _samples_json(samples: tuple[float, ...]) -> dict[str, Any] | None:
    if not samples:
        return None
    return {
        "median": statistics.median(samples),
        "quartiles": quartiles(samples),
        "samples": list(samples),
    }
