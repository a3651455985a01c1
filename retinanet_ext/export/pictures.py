"""Pictures that an export is compared and calibrated on, read as a stranger would read them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from ..errors import InputError, one_line
from ..inference.exported.standalone import preprocess

__all__ = ["enough_pictures", "read"]

FEWEST_PICTURES = 3
SIZES = ((480, 360), (300, 400), (410, 410))
"""Width and height of made-up pictures."""


def read(path: str, meta: Mapping[str, Any]) -> np.ndarray:
    """Pixels (H, W, C) uint8 by ``preprocess.py``.

    Raises:
        InputError: it cannot be read.
    """
    try:
        return preprocess.read(path, meta)
    except (OSError, SyntaxError, ValueError) as error:  # what Pillow raises
        raise InputError(
            f"'{path}' cannot be read as a picture ({one_line(error)}); leave it out"
        ) from error


def enough_pictures(given: Sequence[str], scratch: str) -> list[str]:
    """The given files, and made-up ones until there are enough.

    Args:
        given: paths.
        scratch: a folder for those that are made up.

    Raises:
        InputError: one is not there.
    """
    missing = [x for x in given if not os.path.isfile(x)]
    if missing:
        raise InputError(f"--verify names '{missing[0]}', and there is no such file")
    paths, random = list(given), np.random.default_rng(0)
    for i in range(FEWEST_PICTURES - len(paths)):
        coarse = random.integers(0, 256, (9, 12, 3), dtype=np.uint8)
        paths.append(os.path.join(scratch, f"made_up_{i}.png"))
        Image.fromarray(coarse).resize(SIZES[i], Image.Resampling.BICUBIC).save(paths[-1])
    return paths
