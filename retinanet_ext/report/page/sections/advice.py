"""What to try next."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..html import esc, section

__all__ = ["advice"]


def advice(content: Mapping[str, Any]) -> str:
    """The section; it follows from the numbers of the page."""
    found = content.get("advice")
    if found is None:
        return ""
    if not found:
        said = (
            "<p>No rule of this page applies: nothing in the numbers asks for a certain change. "
            "More and more varied pictures, and longer training, help nearly always.</p>"
        )
        return section("try", "What to try", said)
    rows = []
    for one in found:
        command = f"<pre><code>{_lines(one['command'])}</code></pre>" if one.get("command") else ""
        rows.append(f"<li><b>{esc(one['finding'])}</b> {esc(one['action'])}{command}</li>")
    lead = "From the numbers of this page, by fixed rules; the most promising first."
    return section("try", "What to try", f'<ol class="advice">{"".join(rows)}</ol>', lead=lead)


def _lines(text: str) -> str:
    """A command as html, with its line breaks."""
    return "\n".join(esc(line) for line in text.splitlines())
