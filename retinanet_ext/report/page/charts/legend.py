"""The legend of a chart, and a chart with its caption."""

from __future__ import annotations

from collections.abc import Sequence

from ..html import esc, short

__all__ = ["figure", "legend"]


def legend(entries: Sequence[tuple[str, str]]) -> str:
    """A list of (colour class, text)."""
    if not entries:
        return ""
    rows = "".join(f'<li><i class="{color}"></i>{short(text, 40)}</li>' for color, text in entries)
    return f'<ul class="legend">{rows}</ul>'


def figure(
    title: str, chart: str, caption: str = "", entries: Sequence[tuple[str, str]] = ()
) -> str:
    """A chart under its title.

    Args:
        title: text.
        chart: html.
        caption: html of what it means.
        entries: of the legend.
    """
    said = f"<figcaption>{caption}</figcaption>" if caption else ""
    return f"<figure><h3>{esc(title)}</h3>{chart}{legend(entries)}{said}</figure>"
