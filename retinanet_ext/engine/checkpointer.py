"""Old place of `retinanet_ext.engine.checkpoint.checkpointer`; kept for scripts."""

from __future__ import annotations

from .checkpoint.checkpointer import SafeCheckpointer

__all__ = ["SafeCheckpointer"]
