"""What objects are taken for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..html import Cell, esc, number, section, short, table
from .classes import MANY

__all__ = ["confusion"]

OTHER = ' class="other"'
CAPTION = (
    "Rows: what it is; a row adds up to the objects of the class, and the last one are detections "
    "where there is no object. Columns: what it is detected as. Stronger: a larger share of the "
    "row; blue is right, red is wrong."
)
STRONG = 0.5  # share of a row from which a cell is so dark that its number is written in white


def confusion(content: Mapping[str, Any]) -> str:
    """The section."""
    found, settings = content["confusion"], content["settings"]
    pairs = content["most_confused"]
    lead = (
        f"What objects are detected as, at an IoU of {settings['iou']:g}. Detections count from "
        f"{settings['threshold']}."
    )
    parts = []
    if pairs:
        said = ", ".join(
            f"{short(x['actual'], 30)} taken for {short(x['detected'], 30)} {_times(x['count'])}"
            for x in pairs[:3]
        )
        parts.append(f"<p>Most confused: {said}.</p>")
    else:
        parts.append("<p>No object is taken for another class.</p>")
    if len(found["labels"]) - 1 <= MANY and found["matrix"] is not None:
        parts.append(_matrix(found["labels"], found["columns"], found["matrix"]))
    elif pairs:
        rows: list[list[Cell]] = [
            [short(x["actual"], 40), short(x["detected"], 40), (number(x["count"]), x["count"])]
            for x in pairs
        ]
        headers = (("object of class", ""), ("taken for", ""), ("times", ""))
        parts.append(f"<h3>The {len(rows)} most confused pairs</h3>{table(headers, rows, True)}")
        parts.append('<p class="note">The whole matrix is in report.json.</p>')
    return section("confusion", "What is taken for what", *parts, lead=lead)


def _matrix(labels: Sequence[str], columns: Sequence[str], matrix: Sequence[Sequence[int]]) -> str:
    last = len(labels) - 1
    heads = (
        f'<th scope="col"{OTHER if i == last else ""}>{short(name, 24)}</th>'
        for i, name in enumerate(columns)
    )
    body = []
    for i, (name, row) in enumerate(zip(labels, matrix, strict=True)):
        total = max(sum(row), 1)
        cells = "".join(
            _cell(count, count / total, i, k, last, name, columns[k]) for k, count in enumerate(row)
        )
        body.append(
            f'<tr><th scope="row"{OTHER if i == last else ""}>{short(name, 24)}</th>{cells}</tr>'
        )
    return (
        f'<div class="scroll" tabindex="0"><table class="matrix"><caption>{CAPTION}</caption>'
        f"<thead><tr><td></td>{''.join(heads)}</tr></thead><tbody>{''.join(body)}</tbody></table></div>"
    )


def _cell(
    count: int, share: float, row: int, column: int, last: int, actual: str, seen: str
) -> str:
    if row == column == last:
        return '<td class="none"></td>'
    kind = "right" if row == column else "wrong"
    strong = " strong" if share > STRONG and count else ""
    told = f"{actual} detected as {seen}: {count}"
    if row == last:
        told = f"background detected as {seen}: {count}"
    elif column == last:
        told = f"{actual} missed: {count}"
    text = number(count) if count else "·"
    return (
        f'<td class="{kind}{strong}" style="--v:{share if count else 0:.3f}" '
        f'title="{esc(told)}">{text}</td>'
    )


def _times(number_of: int) -> str:
    return "once" if number_of == 1 else f"{number(number_of)} times"
