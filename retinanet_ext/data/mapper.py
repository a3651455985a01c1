"""Old place of `retinanet_ext.data.loading.ignore_mapper`; kept for scripts."""

from __future__ import annotations

from .loading.ignore_mapper import IgnoreRegionMapper, is_ignored

__all__ = ["IgnoreRegionMapper", "is_ignored"]
