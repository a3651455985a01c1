"""Moments in which a signal that asks to stop has to wait."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from typing import Any

from ...compat import end_workers
from ...data.loading.wrapped_loader import WrappedLoader

__all__ = ["StartsWhole", "is_deferred", "signals_deferred"]


class _Waiting:
    depth = 0
    signals: list[int] = []


def is_deferred(number: int) -> bool:
    """Whether the signal has to wait; for handlers, which then do nothing: it will come again."""
    if not _Waiting.depth:
        return False
    _Waiting.signals.append(number)
    return True


@contextlib.contextmanager
def signals_deferred() -> Iterator[None]:
    """Within the block, handlers that ask :func:`is_deferred` raise nothing; at its end they do."""
    _Waiting.depth += 1
    try:
        yield
    finally:
        _Waiting.depth -= 1
        if not _Waiting.depth:
            waiting, _Waiting.signals = _Waiting.signals, []
            for number in waiting:
                signal.raise_signal(number)


class StartsWhole(WrappedLoader):
    """A data loader whose workers start, and end, as a whole; in all else that loader.

    PyTorch's clean-up of one that is interrupted half-way fails with an AttributeError.
    """

    def __iter__(self) -> Iterator[Any]:
        batches: Any = None
        try:
            with signals_deferred():
                batches = iter(self._loader)
            yield from batches
        finally:
            with signals_deferred():
                end_workers(batches)
