"""Datasets that several steps of a start-up need, read from disk once.

The checks, the class counts, the length of an epoch and the training loader each ask
``DatasetCatalog`` for the same dataset. Between :func:`hold_datasets` and :func:`release_datasets`
the catalog reads it at the first call, and gives the same dicts to the others.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from detectron2.data import DatasetCatalog

__all__ = ["hold_datasets", "release_datasets"]


class _Held:
    """Stands for a dataset in the catalog; in all else that dataset."""

    def __init__(self, source: Any):
        self.source = source
        self._dicts: Any = None

    def __call__(self) -> Any:
        if self._dicts is None:
            self._dicts = self.source()
        # A list of its own for each reader, which may reorder it; the dicts are only read.
        return list(self._dicts) if isinstance(self._dicts, list) else self._dicts

    def __getattr__(self, name: str) -> Any:
        if name == "source":  # asked for before __init__ has run, as by copy and pickle
            raise AttributeError(name)
        return getattr(self.source, name)


def hold_datasets(names: Iterable[str]) -> bool:
    """From now on, read each of these datasets at most once, and keep it in memory.

    Args:
        names: of datasets; those that are not registered, or held already, are passed over.

    Returns:
        Whether there were others than those.
    """
    new = False
    for name in names:
        if name in DatasetCatalog and not isinstance(DatasetCatalog[name], _Held):
            DatasetCatalog[name] = _Held(DatasetCatalog[name])
            new = True
    return new


def release_datasets() -> None:
    """Give the memory of all held datasets back; the catalog is as before."""
    for name in list(DatasetCatalog):
        if isinstance(DatasetCatalog[name], _Held):
            DatasetCatalog[name] = DatasetCatalog[name].source
