"""Horizontal bars with their names and numbers, as a list that needs no picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ..html import esc

__all__ = ["Bar", "bars"]


class Bar(NamedTuple):
    """A row: ``name`` and ``said`` are html, ``shown`` is the number as text."""

    name: str
    value: float
    shown: str
    said: str = ""
    color: str = "c0"


def bars(rows: Sequence[Bar], title: str) -> str:
    """The rows, the longest bar as wide as there is room.

    Args:
        rows: their values are at least 0.
        title: what they are, for those who cannot see it.
    """
    highest = max((row.value for row in rows), default=0.0) or 1.0
    found = []
    for row in rows:
        width = 100 * row.value / highest
        said = f'<span class="said">{row.said}</span>' if row.said else ""
        found.append(
            f'<li><span class="name">{row.name}</span><span class="track">'
            f'<i class="{row.color}" style="width:{width:.1f}%"></i></span>'
            f'<span class="value">{esc(row.shown)}</span>{said}</li>'
        )
    return f'<ul class="bars" aria-label="{esc(title)}">{"".join(found)}</ul>'
