"""Config keys: defaults, loading, validation, keys that nothing reads."""

from __future__ import annotations

from .defaults import add_retinanet_ext_config, get_cfg, register_config_key
from .load import flatten, load_config_file
from .validate import validate_cfg

__all__ = [
    "add_retinanet_ext_config",
    "flatten",
    "get_cfg",
    "load_config_file",
    "register_config_key",
    "validate_cfg",
]
