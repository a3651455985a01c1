"""Finding images, and their sizes as Detectron2 reads them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from PIL import Image

from ...errors import InputError, MissingFileError, UserError
from ..loading.pixels import why_unreadable

__all__ = ["IMAGE_SUFFIXES", "find_unopened", "image_size", "is_hidden", "is_image", "read_sizes"]

IMAGE_SUFFIXES: tuple[str, ...] = (
    ".jpg",
    ".jpeg",
    ".png",
    ".bmp",
    ".tif",
    ".tiff",
    ".webp",
    ".ppm",
    ".pgm",
)
IMAGE_SUFFIXES += (".jfif", ".jpe", ".jp2", ".pnm", ".pbm", ".gif", ".avif")
EXIF_ORIENTATION = 274
SIDEWAYS = (5, 6, 7, 8)  # orientations that exchange height and width


def is_image(name: str | os.PathLike) -> bool:
    """Whether a file name ends like an image's, and is no file of a system's own."""
    name = os.fspath(name)
    return name.lower().endswith(IMAGE_SUFFIXES) and not is_hidden(name)


def is_hidden(name: str) -> bool:
    """Whether a file or folder is a system's or a tool's own: ``._a.jpg``, ``.ipynb_checkpoints``.

    Args:
        name: a path, of which the last part counts.
    """
    name = os.path.basename(name)
    return name.startswith(".") or name == "__MACOSX"


def image_size(path: str) -> tuple[int, int]:
    """Height and width in pixels after the rotation that EXIF asks for, as Detectron2 applies it.

    Only the head of the file is read.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is no image.
    """
    if not os.path.isfile(path) and os.path.exists(path):
        raise InputError(f"image {path} is a folder, device or pipe, but must be a file")
    try:
        with Image.open(path) as image:
            width, height = image.size
            sideways = image.getexif().get(EXIF_ORIENTATION) in SIDEWAYS
    except FileNotFoundError:
        raise MissingFileError(f"image {path} does not exist") from None
    except Exception as error:  # Pillow's decoders raise many kinds
        raise InputError(f"image {path} {why_unreadable(error)}") from error
    return (width, height) if sideways else (height, width)


def read_sizes(paths: Sequence[str]) -> tuple[dict[str, tuple[int, int]], dict[str, str]]:
    """Size of each image; several at once, as most of the time is waiting for the disk.

    Returns:
        (height, width) by path, and for those that cannot be read, by path too, why.
    """
    sizes: dict[str, tuple[int, int]] = {}
    bad: dict[str, str] = {}
    with ThreadPoolExecutor(8) as pool:
        for path, found in zip(paths, pool.map(_size_or_reason, paths), strict=True):
            if isinstance(found, str):
                bad[path] = found
            else:
                sizes[path] = found
    return sizes, bad


def find_unopened(paths: Sequence[str]) -> dict[str, str]:
    """Those that are not there or are no pictures, by path, and why; their pixels are not read."""
    with ThreadPoolExecutor(8) as pool:
        reasons = pool.map(_why_unopened, paths)
        return {path: why for path, why in zip(paths, reasons, strict=True) if why}


def _why_unopened(path: str) -> str:
    if not os.path.isfile(path):
        return "does not exist"
    try:
        with Image.open(path):
            return ""
    except Exception as error:  # Pillow's decoders raise many kinds
        return why_unreadable(error)


def _size_or_reason(path: str) -> tuple[int, int] | str:
    try:
        return image_size(path)
    except UserError as error:
        return str(error).removeprefix(f"image {path} ")
