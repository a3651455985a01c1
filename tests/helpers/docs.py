"""What the pages under docs/ show."""

from __future__ import annotations

import re


def blocks(page: str, language: str) -> list[str]:
    """The code blocks of a language, in order.

    Args:
        page: its text.
        language: as it stands behind the fence.
    """
    return re.findall(rf"^```{language}\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
