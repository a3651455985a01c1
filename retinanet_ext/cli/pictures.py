"""What the commands that draw share: which images, what they are called, where they go."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from ..errors import InputError
from .outputs import check_writable

__all__ = ["check_picture", "count", "pick_images"]


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


def count(number: int, what: str, plural: str = "") -> str:
    """``1 image``, ``2 images``, ``2 boxes``."""
    return f"{number} {what}" if number == 1 else f"{number} {plural or what + 's'}"
