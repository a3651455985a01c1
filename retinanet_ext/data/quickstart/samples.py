"""A few scenes as files, to try a model on without a dataset."""

from __future__ import annotations

import os
from pathlib import Path

from ...errors import FileError
from .dataset import render_scene
from .raster import encode_png, require_opencv

__all__ = ["write_samples"]

SEED = 1  # the datasets are of seed 0: no model was trained on these, or chosen by them


def write_samples(folder: str | os.PathLike[str], count: int) -> list[str]:
    """Draw ``scene_1.png`` and so on, the same at every call.

    Args:
        folder: made where it is not there.
        count: how many, at least 1.

    Returns:
        Their paths.

    Raises:
        FileError: they cannot be written.
        MissingPackageError: OpenCV, which draws them, is not installed.
    """
    require_opencv()
    place = Path(folder)
    paths = [place / f"scene_{index + 1}.png" for index in range(count)]
    try:
        place.mkdir(parents=True, exist_ok=True)
        for index, path in enumerate(paths):
            path.write_bytes(encode_png(render_scene("val", index, SEED).image))
    except OSError as error:
        raise FileError(
            error.errno, f"cannot write pictures to '{folder}': {error.strerror or error}"
        ) from error
    return [str(path) for path in paths]
