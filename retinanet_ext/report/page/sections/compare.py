"""Two runs side by side."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..html import Cell, number, percent, points, section, short, signed, table
from .classes import EACH_END, MANY
from .head import verdict

__all__ = ["compare"]

SUMMARY = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR100")


def compare(content: Mapping[str, Any]) -> str:
    """The section; nothing without another run."""
    found = content.get("compare")
    if not found:
        return ""
    rows = []
    for key in SUMMARY:
        ours, others = found["this"].get(key), found["other"].get(key)
        change = found.get(key)
        between, words = "", ""
        if isinstance(change, Mapping):
            between = f"{signed(change['low'])} to {signed(change['high'])}"
            words = f"{verdict(change)} (above 0 in {percent(change['share_above_zero'])} of draws)"
        rows.append(
            [key, points(ours), points(others), signed(_minus(ours, others)), between, words]
        )
    headers = (
        ("", ""),
        ("this", ""),
        ("other", ""),
        ("difference", "this minus other"),
        ("95 % interval", "of the difference, by bootstrap: the same images are drawn of both"),
        ("", ""),
    )
    lead = (
        f"This, against {short(found['with'])}, on the same {number(found['images'])} images. The "
        "interval says how far the difference may be off with other images of the same kind: if it "
        "holds 0, the difference may be chance."
    )
    parts = [table(headers, rows), _classes(found["classes"]), _errors(found["errors"])]
    return section("compare", "Comparison", *parts, lead=lead)


def _classes(rows: Mapping[str, Mapping[str, float]]) -> str:
    if len(rows) < 2:
        return ""
    names = list(rows)
    title = "AP by class"
    if len(rows) > MANY:
        change = {x: _minus(rows[x]["this"], rows[x]["other"]) or 0.0 for x in rows}
        ordered = sorted(names, key=lambda x: change[x])
        names = [*ordered[:EACH_END], *ordered[-EACH_END:]]
        title = f"AP of the {len(names)} classes that changed most"
    cells: list[list[Cell]] = []
    for name in names:
        row = rows[name]
        change_of = _minus(row["this"], row["other"])
        cells.append(
            [
                (short(name, 40), name[:200]),
                (number(int(row["n"])), row["n"]),
                (points(row["this"]), row["this"]),
                (points(row["other"]), row["other"]),
                (signed(change_of), change_of or 0.0),
            ]
        )
    headers = (("class", ""), ("objects", ""), ("this", ""), ("other", ""), ("difference", ""))
    return f"<h3>{title}</h3>{table(headers, cells, sortable=True)}"


def _errors(rows: Mapping[str, Mapping[str, float]]) -> str:
    cells = [
        [kind, points(x["this"]), points(x["other"]), signed(_minus(x["this"], x["other"]))]
        for kind, x in rows.items()
    ]
    headers = (("kind of error", ""), ("this", ""), ("other", ""), ("difference", ""))
    return f"<h3>Points of AP lost to each kind of error</h3>{table(headers, cells)}"


def _minus(ours: float | None, others: float | None) -> float | None:
    return None if ours is None or others is None else ours - others
