"""A config that is put together choice by choice; what the user has set stays."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import Any

from detectron2.config import CfgNode

from .choice import Choice

__all__ = ["Draft", "get_key", "set_key"]

YOURS = "yours"


class Draft:
    """What is chosen so far.

    Attributes:
        cfg: Detectron2's and this package's defaults, the choices, and the user's keys.
        choices: the rows of the table.
        given: full names of the keys that the user has set.
        keys: full names of all keys to be written, in the order of their choice.
    """

    def __init__(self, cfg: CfgNode, given: Iterable[str]):
        """
        Args:
            cfg: with the user's keys in it; is changed.
            given: their full names.
        """
        self.cfg = cfg
        self.given = set(given)
        self.choices: list[Choice] = []
        self.keys: list[str] = []

    def take(self, choice: Choice) -> None:
        """Write the choice's keys, but for those that the user has set; another of the same
        setting is replaced."""
        own = {key: value for key, value in choice.keys.items() if key not in self.given}
        for key, value in own.items():
            set_key(self.cfg, key, value)
        self.note(*choice.keys)
        rows = [row for row in self.choices if row.setting != choice.setting]
        at = next((i for i, x in enumerate(self.choices) if x.setting == choice.setting), len(rows))
        rows.insert(at, self._as_shown(choice, own))
        self.choices = rows

    def note(self, *keys: str) -> None:
        """These keys are to be written, too."""
        self.keys += [key for key in keys if key not in self.keys]

    def show_rest(self) -> None:
        """A row for each key of the user's that no choice speaks of."""
        shown = {key for row in self.choices for key in row.keys}
        for key in sorted(self.given - shown - {"OUTPUT_DIR"}):
            value = get_key(self.cfg, key)
            self.choices.append(Choice(key, str(value), YOURS, {key: value}))
            self.note(key)

    def _as_shown(self, choice: Choice, own: Mapping[str, Any]) -> Choice:
        yours = {key: get_key(self.cfg, key) for key in choice.keys if key not in own}
        if not yours:
            return choice
        words = ", ".join(
            f"{key} {value if value != '' else repr('')}" for key, value in yours.items()
        )
        keys = {**choice.keys, **yours}
        if not own:
            return Choice(choice.setting, words, YOURS, keys)
        if choice.reason == YOURS:
            return Choice(choice.setting, choice.value, f"{YOURS}: {words}", keys)
        return Choice(choice.setting, choice.value, f"{choice.reason}; {YOURS}: {words}", keys)


def get_key(cfg: CfgNode, name: str) -> Any:
    """The value of a key by its full name."""
    node: Any = cfg
    for part in name.split("."):
        node = node[part]
    return node


def set_key(cfg: CfgNode, name: str, value: Any) -> None:
    """Set a key by its full name; a list becomes a tuple where the key's default is one."""
    *sections, last = name.split(".")
    node: Any = cfg
    for part in sections:
        node = node[part]
    value = copy.deepcopy(value)
    node[last] = tuple(value) if isinstance(node[last], tuple) else value
