"""The table of classes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..html import Cell, fixed, number, percent, points, section, short, table

__all__ = ["MANY", "classes"]

MANY = 40
"""With more classes than this, tables show only some and fold the rest."""

EACH_END = 20
MOST_FOLDED = 2000  # rows; what is more is in report.json

HEADERS = (
    ("class", ""),
    ("objects", "objects in the annotations"),
    ("AP", "mean over IoU 0.50 to 0.95"),
    ("AP50", "at an IoU of 0.5"),
    ("AP75", "at an IoU of 0.75"),
    ("AR", "recall without a score threshold, mean over IoU 0.50 to 0.95"),
    ("score from", "the score threshold that the columns to the right are of"),
    ("precision", "share of the detections from that score on that are right"),
    ("recall", "share of the objects that these detections find"),
    ("F1", "harmonic mean of precision and recall"),
)


def classes(content: Mapping[str, Any]) -> str:
    """The section."""
    rows, settings = content["classes"], content["settings"]
    uncertain = any(row["uncertain"] and row["n"] for row in rows.values())
    lead = (
        "Precision, recall and F1 are of the detections with at least the score in “score from”, "
        f"at an IoU of {settings['iou']:g}. That is {settings['threshold']}."
    )
    note = ""
    if uncertain:
        note = (
            '<p class="note"><span class="tag">uncertain</span> fewer than 10 objects: with so '
            "few, a best score and what it gives are mostly chance.</p>"
        )
    if len(rows) <= MANY:
        return section("classes", "Classes", _table(rows, list(rows)), note, lead=lead)
    ordered = sorted((x for x in rows if rows[x]["n"]), key=lambda x: _known(rows[x]["AP"]))
    low, high = ordered[:EACH_END], ordered[EACH_END:][-EACH_END:]
    parts = [f"<h3>The {len(low)} classes with the lowest AP</h3>", _table(rows, low)]
    if high:
        parts += [f"<h3>The {len(high)} classes with the highest AP</h3>", _table(rows, high[::-1])]
    folded = list(rows)[:MOST_FOLDED]
    title = f"All {number(len(rows))} classes"
    if len(folded) < len(rows):
        title = f"The first {number(MOST_FOLDED)} of {number(len(rows))} classes"
    parts.append(f"<details><summary>{title}</summary>{_table(rows, folded)}</details>")
    return section("classes", "Classes", *parts, note, lead=lead)


def _table(rows: Mapping[str, Mapping[str, Any]], names: list[str]) -> str:
    return table(HEADERS, [_row(name, rows[name]) for name in names], sortable=True)


def _row(name: str, row: Mapping[str, Any]) -> list[Cell]:
    mark = ' <span class="tag">uncertain</span>' if row["uncertain"] and row["n"] else ""
    cells: list[Cell] = [
        (short(name, 28) + mark, name[:200]),
        (number(row["n"]), row["n"]),
    ]
    cells += [(points(row[key]), _known(row[key])) for key in ("AP", "AP50", "AP75", "AR")]
    cells.append((fixed(row["threshold"], 3), row["threshold"]))
    cells += [(percent(row[key], 1), _known(row[key])) for key in ("precision", "recall", "f1")]
    return cells


def _known(value: float | None) -> float:
    """For sorting: a number that does not exist is the lowest."""
    return -1.0 if value is None else value
