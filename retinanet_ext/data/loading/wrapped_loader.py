"""A data loader around another one."""

from __future__ import annotations

from typing import Any

__all__ = ["WrappedLoader"]


class WrappedLoader:
    """In all but what a subclass does, the loader that it is around."""

    def __init__(self, loader: Any):
        self._loader = loader

    def __len__(self) -> int:
        return len(self._loader)

    def __getattr__(self, name: str) -> Any:
        if name == "_loader":  # asked for before __init__ has run, as by copy and pickle
            raise AttributeError(name)
        return getattr(self._loader, name)
