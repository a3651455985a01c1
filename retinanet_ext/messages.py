"""Old place of `retinanet_ext.errors`; kept for scripts."""

from __future__ import annotations

from .errors import did_you_mean

__all__ = ["did_you_mean"]
