"""Configs with all keys: those of Detectron2, of this package, and your own.

The keys of this package stand, each with its meaning, in :mod:`.keys`.
"""

from __future__ import annotations

from typing import Any

from detectron2.config import CfgNode
from detectron2.config import get_cfg as get_detectron2_cfg

from ..errors import InputError
from .keys import KEYS, NOT_ADDED, Key, add_key, differ
from .of_detectron2 import keys as _of_detectron2  # noqa: F401  (defines rules)

__all__ = ["add_retinanet_ext_config", "get_cfg", "register_config_key"]


def add_retinanet_ext_config(cfg: CfgNode) -> None:
    """Add this package's keys, and yours, to ``cfg``; keys that exist already keep their values.

    Every key of Detectron2 keeps its name, meaning and default.
    """
    for key in KEYS.values():
        if key.default is not NOT_ADDED:
            add_key(cfg, key)


def get_cfg() -> CfgNode:
    """Detectron2's default config with this package's keys, and yours, added."""
    cfg = get_detectron2_cfg()
    add_retinanet_ext_config(cfg)
    return cfg


def register_config_key(name: str, default: Any, **rules: Any) -> None:
    """Add a key of your own to every config that :func:`get_cfg` makes from now on.

    It then gets what the package's keys get: config file and command line may set it, a typing
    error names the nearest key, and validation holds it to its type and rules. Call it where your
    component is defined, before the config is made; the same call again changes nothing.

    Args:
        name: full, such as ``"MODEL.RETINANET.POLY_EPSILON"``; a section that does not exist is
            made.
        default: its value where nobody sets it; its type is the key's, None allows any.
        rules: what else it has to fulfil, by the attributes of
            :class:`~retinanet_ext.config.keys.Key`: ``choices``, the bounds ``at_least``,
            ``above``, ``at_most`` and ``below``, ``only_with``, ``meaning``.

    Raises:
        InputError: the key exists with another default or other rules, its default breaks its
            rules, or ``name`` is a section or lies below a key.
    """
    key = Key(name, default, **rules)
    known = KEYS.get(name)
    if known is not None and known.default is not NOT_ADDED:
        if differ(known.default, default) or known != key:
            raise InputError(
                f"config key '{name}' is registered already, with the default {known.default!r} "
                f"and other rules or default than {default!r}; give yours another name"
            )
        return
    node: Any = get_cfg()
    for part in name.split("."):
        if not isinstance(node, CfgNode):
            raise InputError(f"config key '{name}' would lie below a key; give it another name")
        if part not in node:
            break
        node = node[part]
    else:
        kind = "a section" if isinstance(node, CfgNode) else "a key of Detectron2"
        raise InputError(f"'{name}' is {kind} of the config already; give your key another name")
    key.check(default)
    KEYS[name] = key
