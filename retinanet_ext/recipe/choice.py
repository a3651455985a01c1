"""One decision of the recipe: what was chosen, why, and which config keys say so."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Choice"]


@dataclass(frozen=True)
class Choice:
    """A row of the table that a training without a config shows.

    Attributes:
        setting: what was decided, in a word or two.
        value: the decision, in words.
        reason: why.
        keys: full names of config keys and their values.
    """

    setting: str
    value: str
    reason: str
    keys: Mapping[str, Any] = field(default_factory=dict)
