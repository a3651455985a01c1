"""Words for error messages."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return ``" Did you mean 'X'?"`` for the closest known name, or ``""``."""
    by_fold = {k.lower(): k for k in known}
    close = difflib.get_close_matches(name.lower(), by_fold, n=1, cutoff=0.6)
    return f" Did you mean '{by_fold[close[0]]}'?" if close else ""
