"""Galleries of pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ..html import esc, section, short

__all__ = ["Shown", "missing_labels", "worst"]

MOST_OPEN = 9
"""Pictures of a gallery that are not folded."""


class Shown(NamedTuple):
    """A picture: its JPEG as a data URI, its name, and a line about it (html)."""

    uri: str
    name: str
    said: str


def worst(shown: Sequence[Shown]) -> str:
    """The pictures with the most mistakes."""
    if not shown:
        return ""
    lead = (
        "Pictures with the most mistakes at the score thresholds of the table above. "
        '<span class="key found">found</span> <span class="key false">wrong detection</span> '
        '<span class="key missed">missed object</span>'
    )
    return section("worst", "Worst pictures", _gallery(shown), lead=lead)


def missing_labels(shown: Sequence[Shown]) -> str:
    """Sure detections where nothing is annotated."""
    if not shown:
        return ""
    lead = (
        "Sure detections with no annotated object near them. Where there is an object after all, "
        "the annotation is missing: it teaches the model not to find such objects and lowers AP. "
        '<span class="key false">the detection</span> <span class="key found">annotated</span>'
    )
    return section("labels", "Possibly missing annotations", _gallery(shown), lead=lead)


def _gallery(shown: Sequence[Shown]) -> str:
    rows = [
        f'<figure><img decoding="async" src="{x.uri}" alt="{esc(x.name)}">'
        f"<figcaption><b>{short(x.name, 40)}</b> {x.said}</figcaption></figure>"
        for x in shown
    ]
    html = f'<div class="gallery">{"".join(rows[:MOST_OPEN])}</div>'
    if len(rows) > MOST_OPEN:
        more = "".join(rows[MOST_OPEN:])
        html += (
            f"<details><summary>{len(rows) - MOST_OPEN} more</summary>"
            f'<div class="gallery">{more}</div></details>'
        )
    return html
