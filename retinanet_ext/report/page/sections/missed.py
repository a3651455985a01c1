"""Which objects are found by their size and shape, and why the others are not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...findings.reasons import TITLES
from ..charts.bars import Bar, bars
from ..html import Cell, esc, fixed, is_known, number, percent, section, short, table
from .classes import MANY

__all__ = ["missed", "shapes"]

TIMES = "\N{MULTIPLICATION SIGN}"


def shapes(content: Mapping[str, Any]) -> str:
    """Recall by size and aspect ratio."""
    grid = content["recall_grid"]
    where = "in pixels of the pictures"
    if grid["pixels"] == "network":
        where = "in pixels of the network's input, that is, after resizing"
    counts = grid["count"]
    rows = [i for i, row in enumerate(counts) if any(row)]
    if not rows:
        return ""
    used = [k for k in range(len(grid["ratios"])) if any(row[k] for row in counts)]
    columns = range(min(used), max(used) + 1)
    anchors = grid.get("anchor_iou")
    head = "".join(f'<th scope="col">{_ratio(grid["ratios"][k])}</th>' for k in columns)
    body = []
    for i in range(rows[0], rows[-1] + 1):
        name = f"{grid['sizes'][i]:g} to {grid['sizes'][i + 1]:g} px"
        cells = []
        for k in columns:
            n = counts[i][k]
            if not n:
                cells.append('<td class="none"></td>')
                continue
            recall = grid["found"][i][k] / n
            fit = anchors[i][k] if anchors is not None else None
            best = f"<small>anchor {fixed(fit, 2)}</small>" if is_known(fit) else ""
            strong = " strong" if recall > 0.6 else ""
            cells.append(
                f'<td class="right{strong}" style="--v:{recall:.3f}"><b>{percent(recall)}</b>'
                f"<small>of {number(n)}</small>{best}</td>"
            )
        body.append(f'<tr><th scope="row">{name}</th>{"".join(cells)}</tr>')
    more = ""
    if anchors is not None:
        more = (
            " “anchor” is the mean IoU of the objects with the anchor that fits them best: below "
            "0.5, few anchors learn from such objects, and below 0.4 none does by itself."
        )
    lead = (
        "Share of the objects that are found with the scores and the IoU of the table of classes, "
        f"by their size (square root of the area, {where}) and their shape.{more}"
    )
    grid_html = (
        '<div class="scroll" tabindex="0"><table class="matrix grid"><thead><tr><td></td>'
        f"{head}</tr></thead><tbody>{''.join(body)}</tbody></table></div>"
    )
    return section("shapes", "Which sizes and shapes are found", grid_html, lead=lead)


def missed(content: Mapping[str, Any]) -> str:
    """Why objects were missed; nothing where the model was not asked."""
    found = content.get("missed")
    if not found:
        return ""
    total = found["total"]
    if not total:
        said = "<p>No object was missed.</p>"
        return section("missed", "Why objects were missed", said)
    sentences = found["sentences"]
    rows = [
        Bar(
            f"<b>{esc(_capital(TITLES[reason]))}</b>",
            often,
            f"{number(often)} ({percent(often / total)})",
            esc(sentences.get(reason, "")),
        )
        for reason, often in sorted(found["reasons"].items(), key=lambda x: -x[1])
        if often
    ]
    objects = "1 object is" if total == 1 else f"{number(total)} objects are"
    which = "a detection with at least the score threshold of its class"
    how = (
        "Each was followed through the steps of the detector: the reason is the step that lost its "
        "last box."
        if found["with_model"]
        else "Only the detections are known here, so that the steps of the detector, such as its "
        "anchors, cannot be told apart."
    )
    lead = f"{objects} not found by {which}. {how}"
    notes = "".join(f'<p class="note">{esc(note)}</p>' for note in found["notes"])
    return section(
        "missed",
        "Why objects were missed",
        bars(rows, "objects"),
        _by_class(found["by_class"]),
        notes,
        lead=lead,
    )


def _by_class(rows: Mapping[str, Mapping[str, int]]) -> str:
    """A table of classes and reasons, where it is not too long."""
    if not 1 < len(rows) <= MANY:
        return ""
    used = [reason for reason in TITLES if any(row.get(reason) for row in rows.values())]
    cells: list[list[Cell]] = []
    for name, row in rows.items():
        counts: list[Cell] = [
            (number(row[reason]) if row[reason] else "&middot;", row[reason]) for reason in used
        ]
        total = sum(row.values())
        cells.append([(short(name, 40), name[:200]), (number(total), total), *counts])
    headers = [("class", ""), ("missed", ""), *((TITLES[reason], "") for reason in used)]
    inner = table(headers, cells, sortable=True)
    return f"<details><summary>By class</summary>{inner}</details>"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _ratio(value: float) -> str:
    """Height over width in words."""
    if value == 1:
        return "square"
    return (
        f"{value:g} {TIMES} as tall as wide"
        if value > 1
        else f"{1 / value:g} {TIMES} as wide as tall"
    )
