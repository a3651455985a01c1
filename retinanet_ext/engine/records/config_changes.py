"""What differs between the config of a checkpoint and the one it is resumed with."""

from __future__ import annotations

from typing import Any

import yaml
from detectron2.config import CfgNode

from ...config.load import flatten

__all__ = ["config_changes"]

# Where a run lies and how its data is loaded; neither changes what is trained.
NO_CHANGE = ("OUTPUT_DIR", "DATALOADER.NUM_WORKERS")


def config_changes(saved: str, cfg: CfgNode) -> list[str]:
    """One line per key with another value: ``SOLVER.BASE_LR: 0.01 -> 0.02``.

    Args:
        saved: the checkpoint's config, as ``cfg.dump()`` gave it.
        cfg: the config of now.

    Keys that only one of the two has are listed with ``(none)``.
    """
    before = _flat(saved)
    now = _flat(cfg.dump())
    keys = [*now, *(key for key in before if key not in now)]
    return [
        f"{key}: {before.get(key, '(none)')} -> {now.get(key, '(none)')}"
        for key in keys
        if key not in NO_CHANGE and before.get(key, _NOTHING) != now.get(key, _NOTHING)
    ]


_NOTHING = object()


def _flat(text: str) -> dict[str, Any]:
    return dict(flatten(CfgNode(yaml.safe_load(text))))
