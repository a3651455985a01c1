"""The whole html file: style, sections, script and numbers in one."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .html import esc
from .sections.advice import advice
from .sections.classes import classes
from .sections.compare import compare
from .sections.confusion import confusion
from .sections.definitions import definitions
from .sections.errors import errors
from .sections.head import facts, stands_out, tiles
from .sections.missed import missed, shapes
from .sections.pictures import Shown, missing_labels, worst
from .sections.scores import calibration, scores
from .sections.training import training

__all__ = ["document"]

MOST_NUMBERS = 4_000_000  # bytes of the json in the page; a larger one is only beside it
HERE = Path(__file__).parent


def document(
    content: Mapping[str, Any],
    numbers: str,
    worst_shown: Sequence[Shown] = (),
    labels_shown: Sequence[Shown] = (),
) -> str:
    """The page.

    Nothing in it comes from elsewhere, and only its own script runs: names of classes and files are
    text, and the policy in its head refuses all else.

    Args:
        content: of ``report.json``, as JSON has it: numbers that are not finite are None.
        numbers: the same as text.
        worst_shown, labels_shown: pictures of the two galleries.
    """
    style, script = (HERE.joinpath(f"page.{x}").read_text("utf-8").strip() for x in ("css", "js"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = (
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    )
    parts = {
        "Comparison": compare(content),
        "Classes": classes(content),
        "Score threshold": scores(content),
        "Confusion": confusion(content),
        "Errors": errors(content),
        "Missed objects": missed(content),
        "Sizes and shapes": shapes(content),
        "Worst pictures": worst(worst_shown),
        "Missing annotations": missing_labels(labels_shown),
        "Calibration": calibration(content),
        "Training": training(content),
        "What to try": advice(content),
        "Definitions": definitions(content),
    }
    links = " ".join(
        f'<a href="#{_key(part)}">{esc(name)}</a>' for name, part in parts.items() if part
    )
    title = f"Report: {content['dataset']}"
    body = "\n".join(part for part in parts.values() if part)
    hidden = ""
    if len(numbers) <= MOST_NUMBERS:
        hidden = f'<script type="application/json" id="numbers">{_in_script(numbers)}</script>'
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="referrer" content="no-referrer">
<title>{esc(title)}</title>
<style>{style}</style>
</head>
<body>
<header>
<h1>What the detector does wrong, and what to try</h1>
<p class="facts">{facts(content)}</p>
{tiles(content)}
{stands_out(content)}
<nav aria-label="Contents">{links}</nav>
</header>
<main>
{body}
</main>
<footer><p>Made by retinanet-ext report. Every number is in report.json beside this page.
<span id="save"></span></p></footer>
{hidden}
<script>{script}</script>
</body>
</html>
"""


def _key(part: str) -> str:
    """The id of a section."""
    return part.split('id="', 1)[1].split('"', 1)[0]


def _in_script(text: str) -> str:
    r"""JSON that ends no script: ``<`` as ``\u003c``, and likewise JavaScript's other line ends."""
    for sign in "<>&\u2028\u2029":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text
