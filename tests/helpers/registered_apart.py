"""A project's components, registered only while a test wants them.

Other tests look at everything that is registered, and importing registers for good.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from detectron2.modeling import (
    ANCHOR_GENERATOR_REGISTRY,
    BACKBONE_REGISTRY,
    META_ARCH_REGISTRY,
)

from retinanet_ext.config.keys import KEYS
from retinanet_ext.registry import COMPONENT_REGISTRIES


class Apart:
    """A module that was imported, and whose entries and config keys were taken out again."""

    def __init__(self, module: str):
        registries = (META_ARCH_REGISTRY, BACKBONE_REGISTRY, ANCHOR_GENERATOR_REGISTRY)
        tables = [x._obj_map for x in (*registries, *COMPONENT_REGISTRIES)]
        self._tables: list[dict[str, Any]] = [KEYS, *tables]
        before = [dict(table) for table in self._tables]
        importlib.import_module(module)
        self._added = [
            {name: entry for name, entry in table.items() if name not in old}
            for table, old in zip(self._tables, before, strict=True)
        ]
        self._take_out()

    @contextmanager
    def registered(self) -> Iterator[None]:
        """Within the block, all of it is registered."""
        for table, added in zip(self._tables, self._added, strict=True):
            table.update(added)
        try:
            yield
        finally:
            self._take_out()

    def _take_out(self) -> None:
        for table, added in zip(self._tables, self._added, strict=True):
            for name in added:
                table.pop(name, None)
