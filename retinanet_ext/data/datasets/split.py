"""A validation set from a fraction of the images, the same ones whatever is added."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence

from ...errors import InputError, count

__all__ = ["split_images"]


def split_images(
    file_names: Sequence[str],
    part: str,
    fraction: float,
    seed: int,
    groups: Sequence[int] | None = None,
) -> list[int]:
    """Indices of the images of one part.

    The side of an image depends only on its file name (without folder) and the seed: images that
    are added, removed or moved to another folder leave the others where they are. The share is
    therefore met on average. If either part would be empty, it gets the one nearest to it.

    Args:
        file_names: paths.
        part: "train" or "val".
        fraction: fraction of "val", in (0, 1).
        seed: another one gives another split.
        groups: of each image; those of one group are on the side of its lowest name.

    Raises:
        ValueError: there are not two images with different names, or not two groups.
    """
    places = [_place(name, seed) for name in file_names]
    if groups is not None:
        places = _of_groups(file_names, places, groups)
    if len(set(places)) < 2:
        raise InputError(
            f"{count(len(places), 'image')} cannot be split into a training and a validation part; "
            "give both, or set DATASETS.VAL_FRACTION to 0"
        )
    lowest, highest = min(places), max(places)
    in_val = [p == lowest or (p < fraction and p != highest) for p in places]
    return [i for i, val in enumerate(in_val) if val == (part == "val")]


def _of_groups(
    file_names: Sequence[str], places: Sequence[float], groups: Sequence[int]
) -> list[float]:
    """For each image the place of its group's first one by name."""
    first: dict[int, tuple[str, float]] = {}
    for name, place, group in zip(file_names, places, groups, strict=True):
        named = os.path.basename(name), place
        first[group] = min(first.get(group, named), named)
    return [first[group][1] for group in groups]


def _place(path: str, seed: int) -> float:
    """A number in [0, 1) that looks random."""
    digest = hashlib.sha256(f"{seed}/{os.path.basename(path)}".encode()).digest()
    return int.from_bytes(digest[:6], "big") / 2**48
