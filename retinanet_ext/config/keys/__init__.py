"""The config keys that this package adds, each with its meaning, and the rules for them.

:mod:`.key` is what a key is; :mod:`.model`, :mod:`.backbones`, :mod:`.data` and :mod:`.training`
define them.
"""

from __future__ import annotations

from . import backbones, data, model, training  # noqa: F401  (define keys)
from .key import KEYS, NOT_ADDED, Key, Section, add_key, as_lists, check_keys, differ, find

__all__ = [
    "KEYS",
    "NOT_ADDED",
    "Key",
    "Section",
    "add_key",
    "as_lists",
    "check_keys",
    "differ",
    "find",
]
