"""What the commands that draw share: which images, what they are called, where they go."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

from PIL import Image

from ...data.loading.bad_images import BadImageError
from ...errors import InputError
from ..outputs import check_writable

__all__ = ["check_picture", "each_readable", "pick_images"]

Read = TypeVar("Read")


def check_picture(option: str, path: str, make_folder: bool = True) -> None:
    """Check that Pillow can write a picture of this name.

    Raises:
        InputError: it knows no such format.
        UserError: as of :func:`check_writable`.
    """
    Image.init()
    if Path(path).suffix.lower() not in Image.EXTENSION:
        raise InputError(f"{option} is '{path}', which is no kind of picture; end it in .png")
    check_writable(option, path, make_folder)


def each_readable(
    records: Iterable[dict[str, Any]], read: Callable[[dict[str, Any]], Read]
) -> tuple[list[Read], list[dict[str, Any]]]:
    """What ``read`` gives for each record; a bad picture is named on stderr and left out.

    Args:
        records: Detectron2's dataset dicts.
        read: raises :class:`BadImageError` where a picture cannot be loaded.

    Returns:
        What was read, and the records of the pictures that were.

    Raises:
        BadImageError: none of the pictures could be loaded.
    """
    found, used = [], []
    failed: BadImageError | None = None
    for record in records:
        try:
            found.append(read(record))
        except BadImageError as error:
            print(f"warning: {error}; left out of the picture", file=sys.stderr)
            failed = error
        else:
            used.append(record)
    if failed is not None and not found:
        raise failed
    return found, used


def pick_images(num_objects: list[int], num: int) -> list[int]:
    """Choose ``num`` indices, spread evenly and the same every time; images with objects first.

    Args:
        num_objects: of each image.
        num: how many to choose; all if there are fewer.
    """
    with_objects = [i for i, count in enumerate(num_objects) if count]
    empty = [i for i, count in enumerate(num_objects) if not count]
    chosen = _spread(with_objects, num)
    return sorted(chosen + _spread(empty, num - len(chosen)))


def _spread(items: list[int], num: int) -> list[int]:
    """``num`` of the items, from the middles of as many equal parts."""
    num = min(max(num, 0), len(items))
    return [items[(2 * i + 1) * len(items) // (2 * num)] for i in range(num)]
