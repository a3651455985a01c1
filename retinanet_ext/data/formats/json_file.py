"""Reads a json that someone else wrote: nothing in it is lost, and every fault is a sentence."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from detectron2.utils.file_io import PathManager

from ...errors import InputError, one_line

__all__ = ["read_json"]


def read_json(path: str, shrink: Callable[[dict[str, Any]], Any] | None = None) -> Any:
    """The content of a json file.

    Args:
        path: anything that ``PathManager`` can open.
        shrink: called with each object, gives what is kept of it.

    Raises:
        ValueError: it is no json, is nested too deeply, or has an object with the same key twice,
            of which Python would keep the last one without a word.
        OSError: it cannot be read.
    """

    def collect(pairs: list[tuple[str, Any]]) -> Any:
        found = dict(pairs)
        if len(found) < len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for name in names if names.count(name) > 1)
            simple = [(k, v) for k, v in pairs if k != twice and isinstance(v, str | int)]
            where = f" with {simple[0][0]} {simple[0][1]!r}" if simple else ""
            raise _Twice(
                f"an object{where} has the key '{twice}' twice, and which of them is right cannot "
                "be known; remove one"
            )
        return shrink(found) if shrink else found

    try:
        with PathManager.open(path, "r", encoding="utf-8-sig") as file:
            return json.load(file, object_pairs_hook=collect)
    except _Twice as error:
        raise InputError(f"{path}: {error}") from None
    except RecursionError:
        raise InputError(f"{path} is not json: its lists are nested too deeply") from None
    except ValueError as error:
        raise InputError(f"{path} is not json: {one_line(error)}") from error


class _Twice(Exception):
    """A key that stands twice in an object."""
