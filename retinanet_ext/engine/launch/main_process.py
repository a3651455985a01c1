"""Work that the main process of a job does for all of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from detectron2.utils import comm

__all__ = ["on_main_process"]

T = TypeVar("T")


def on_main_process(function: Callable[[], T]) -> T:
    """Run ``function`` in the main process while the others wait.

    Its result, or the exception that it raises, reaches all of them; both must be picklable.
    """
    result: tuple[Any, Exception | None] = None, None
    if comm.is_main_process():
        try:
            result = function(), None
        except Exception as caught:  # the others would wait for ever
            result = None, caught
    value, error = comm.all_gather(result)[0]
    if error is not None:
        raise error
    return value
