"""Old place of `retinanet_ext.config`; kept for scripts."""

from __future__ import annotations

from .config import flatten, validate_cfg

__all__ = ["flatten", "validate_cfg"]
