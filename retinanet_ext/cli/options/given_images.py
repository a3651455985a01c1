"""Images without annotations, as ``--images`` names them."""

from __future__ import annotations

import os
from collections.abc import Sequence

from ...data.formats.images import IMAGE_SUFFIXES, is_image
from ...errors import MissingFileError

__all__ = ["list_images"]


def list_images(paths: Sequence[str], option: str = "--images") -> list[str]:
    """The files among ``paths``, and the images directly in its folders, each once.

    Folders are listed in the order of their file names.

    Raises:
        FileNotFoundError: a path is not there, or a folder has no image.
    """
    found: list[str] = []
    for path in paths:
        if not os.path.exists(path):
            raise MissingFileError(f"{option} names '{path}', and there is no such file or folder")
        if not os.path.isdir(path):
            found.append(path)
            continue
        files = sorted(entry.path for entry in os.scandir(path) if is_image(entry.name))
        if not files:
            raise MissingFileError(
                f"{option} names '{path}', a folder without images ({' '.join(IMAGE_SUFFIXES)}); "
                "folders within it are not searched"
            )
        found += files
    return list(dict.fromkeys(found))
