"""Old place of `retinanet_ext.data.loading.test_mapper`; kept for scripts."""

from __future__ import annotations

from .loading.test_mapper import IgnoreRegionMapper, is_ignored

__all__ = ["IgnoreRegionMapper", "is_ignored"]
