"""Html from text and numbers. All text of a user's goes through :func:`esc`."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Sequence

__all__ = [
    "Cell",
    "esc",
    "fixed",
    "number",
    "percent",
    "points",
    "section",
    "short",
    "signed",
    "table",
]

Cell = str | tuple[str, float | str]
"""Html of a cell, or that and what the cell is sorted by."""

NONE = "\N{EN DASH}"  # for a number that does not exist
MOST_LETTERS = 60  # of a name; the whole of it is in its title


def esc(text: object) -> str:
    """Text as html, in elements and in quoted attributes; what cannot be printed is replaced."""
    shown = "".join(x if x.isprintable() else "\N{REPLACEMENT CHARACTER}" for x in str(text))
    return html.escape(shown, quote=True)


def short(name: object, most: int = MOST_LETTERS) -> str:
    """A name as html, cut where it is long, with all of it to be seen under the pointer."""
    text = str(name)
    if len(text) <= most:
        return esc(text)
    return f'<span title="{esc(text[:1000])}">{esc(text[: most - 1])}…</span>'


def is_known(value: float | None) -> bool:
    """Whether there is such a number."""
    return value is not None and math.isfinite(value)


def fixed(value: float | None, digits: int = 1) -> str:
    """A number with so many decimals, or a dash for none."""
    return f"{value:.{digits}f}" if value is not None and is_known(value) else NONE


def points(value: float | None) -> str:
    """AP and the like."""
    return fixed(value, 1)


def percent(fraction: float | None, digits: int = 0) -> str:
    """A fraction in percent."""
    if fraction is None or not is_known(fraction):
        return NONE
    smallest = 10**-digits
    if 0 < 100 * fraction < smallest / 2:
        return f"under {smallest:g} %"
    return f"{100 * fraction:.{digits}f} %"


def signed(value: float | None, digits: int = 1) -> str:
    """A difference, with its sign."""
    if value is None or not is_known(value):
        return NONE
    text = f"{value:+.{digits}f}"
    return text.replace("-", "\N{MINUS SIGN}") if float(text) else f"{0:.{digits}f}"


def number(value: int) -> str:
    """A count, with thin spaces between thousands."""
    return f"{value:,}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def section(key: str, title: str, *parts: str, lead: str = "") -> str:
    """A part of the page that the list of contents leads to.

    Args:
        key: its id.
        title: text.
        parts: html.
        lead: html of a sentence that says what is to be seen.
    """
    inner = "\n".join(x for x in parts if x)
    said = f'<p class="lead">{lead}</p>' if lead else ""
    return f'<section id="{key}"><h2>{esc(title)}</h2>{said}\n{inner}\n</section>'


def table(
    headers: Sequence[tuple[str, str]],
    rows: Iterable[Sequence[Cell]],
    sortable: bool = False,
    caption: str = "",
) -> str:
    """A table whose first column names the rows.

    Args:
        headers: text and a longer explanation, of each column.
        rows: html of the cells, or that and what the cell is sorted by.
        sortable: whether the page's script lets columns be sorted.
        caption: html.
    """
    head = "".join(f'<th scope="col"{_title(more)}>{esc(text)}</th>' for text, more in headers)
    body = "\n".join(f"<tr>{''.join(_cell(i, x) for i, x in enumerate(row))}</tr>" for row in rows)
    mark = ' class="sortable"' if sortable else ""
    said = f"<caption>{caption}</caption>" if caption else ""
    return (
        f'<div class="scroll" tabindex="0"><table{mark}>{said}<thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _cell(column: int, content: Cell) -> str:
    text, key = content if isinstance(content, tuple) else (content, None)
    value = "" if key is None else f' data-v="{esc(key)}"'
    if column == 0:
        return f'<th scope="row"{value}>{text}</th>'
    return f"<td{value}>{text}</td>"


def _title(text: str) -> str:
    return f' title="{esc(text)}"' if text else ""
