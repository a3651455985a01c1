"""What differs between the config of a checkpoint and the one it is resumed with."""

from __future__ import annotations

from typing import Any

import yaml
from detectron2.config import CfgNode

from ...config.load import flatten
from ...errors import one_line

__all__ = ["config_changes", "saved_value"]

MAX_ALIASES = 16  # of a saved config: cfg.dump() writes one where a list is used twice
# Where a run lies and how its data is loaded; neither changes what is trained.
NO_CHANGE = ("OUTPUT_DIR", "DATALOADER.NUM_WORKERS")


def config_changes(saved: str, cfg: CfgNode) -> list[str]:
    """One line per key with another value: ``SOLVER.BASE_LR: 0.01 -> 0.02``.

    Args:
        saved: the checkpoint's config, as ``cfg.dump()`` gave it.
        cfg: the config of now.

    Keys that only one of the two has are listed with ``(none)``.

    Raises:
        ValueError: ``saved`` is no config.
    """
    before = _flat(saved)
    now = _flat(cfg.dump())
    keys = [*now, *(key for key in before if key not in now)]
    return [
        f"{key}: {before.get(key, '(none)')} -> {now.get(key, '(none)')}"
        for key in keys
        if key not in NO_CHANGE and before.get(key, _NOTHING) != now.get(key, _NOTHING)
    ]


def saved_value(saved: str, key: str) -> Any:
    """The value of a key in a checkpoint's config.

    Raises:
        KeyError: it does not have the key.
        ValueError: ``saved`` is no config.
    """
    return _flat(saved)[key]


_NOTHING = object()


def _flat(text: str) -> dict[str, Any]:
    if not isinstance(text, str):
        raise ValueError(f"it is a {type(text).__name__}, not the text of a config")
    try:
        aliases = sum(isinstance(x, yaml.AliasEvent) for x in yaml.parse(text))
        if aliases > MAX_ALIASES:  # a few lines of them stand for gigabytes
            raise ValueError(f"it has {aliases} yaml aliases")
        return dict(flatten(CfgNode(yaml.safe_load(text))))
    except (yaml.YAMLError, AssertionError, AttributeError, TypeError, RecursionError) as error:
        raise ValueError(f"it is not the yaml of a config: {one_line(error)[:100]}") from error
