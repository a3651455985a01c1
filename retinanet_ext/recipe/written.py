"""The recipe as a table and as a yaml file that anyone can read, edit and train with."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

import yaml
from detectron2.config import CfgNode
from tabulate import tabulate

from .choice import Choice
from .draft import Draft, get_key

__all__ = ["FILE_NAME", "as_table", "as_yaml"]

FILE_NAME = "recipe.yaml"
ALWAYS = ("DATASETS.TRAIN", "DATASETS.TEST", "DATASETS.EXTRA", "OUTPUT_DIR", "VERSION")
COLUMNS = {"setting": 17, "value": 38, "reason": 42}  # widths in characters


def as_table(choices: Sequence[Choice]) -> str:
    """One row per choice: setting, value, reason."""
    rows = [
        [textwrap.fill(x, COLUMNS[name]) for name, x in _cells(choice).items()]
        for choice in choices
    ]
    return tabulate(rows, list(COLUMNS), tablefmt="simple", disable_numparse=True)


def _cells(choice: Choice) -> dict[str, str]:
    return {"setting": choice.setting, "value": choice.value, "reason": choice.reason}


def as_yaml(draft: Draft, command: str) -> str:
    """All keys that were chosen or given, as yaml, with the table above them.

    Args:
        draft: all choices are made.
        command: that made them.
    """
    head = [
        f"Written by: {command}",
        "Edit it and train with: train_net.py --config-file THIS_FILE",
        "",
        *as_table(draft.choices).splitlines(),
    ]
    comment = "".join(f"# {line}".rstrip() + "\n" for line in head)
    tree: dict[str, Any] = {}
    for name in [*ALWAYS, *draft.keys]:
        _put(tree, name, _plain(get_key(draft.cfg, name)))
    body = yaml.safe_dump(tree, sort_keys=False, default_flow_style=None, width=100)
    return comment + body


def _put(tree: dict[str, Any], name: str, value: Any) -> None:
    *sections, last = name.split(".")
    for part in sections:
        tree = tree.setdefault(part, {})
    tree[last] = value


def _plain(value: Any) -> Any:
    if isinstance(value, CfgNode):
        return {key: _plain(x) for key, x in value.items()}
    if isinstance(value, dict):
        return {key: _plain(x) for key, x in value.items()}
    return [_plain(x) for x in value] if isinstance(value, (list, tuple)) else value
