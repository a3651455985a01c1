"""Batches of images that are not loaded yet: which ones belong together."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

__all__ = ["Draw", "batch_draws", "find_wide", "group_draws"]

logger = logging.getLogger(__name__)

Draw = tuple[int, int]
"""Index of an image in the dataset, and number of the draw in the stream of all processes."""


def batch_draws(draws: Iterable[Draw], batch_size: int, skip: int = 0) -> Iterator[list[Draw]]:
    """Batches of ``batch_size`` draws in their order, without the first ``skip`` batches.

    An incomplete last batch is left out, should the draws end.
    """
    rest = itertools.islice(draws, skip * batch_size, None)
    while len(batch := list(itertools.islice(rest, batch_size))) == batch_size:
        yield batch


def group_draws(
    draws: Iterable[Draw], batch_size: int, is_wide: Sequence[bool], skip: int = 0
) -> Iterator[list[Draw]]:
    """Batches of which all images are wider than high, or none is; each as soon as it is full.

    Args:
        draws: endless, or the images of the last batches are left out.
        batch_size: draws per batch.
        is_wide: for each index whether its image is wider than high.
        skip: the number of batches to leave out at the start.
    """
    groups: tuple[list[Draw], list[Draw]] = ([], [])
    for draw in draws:
        group = groups[is_wide[draw[0]]]
        group.append(draw)
        if len(group) == batch_size:
            batch = group[:]
            group.clear()
            if skip:
                skip -= 1
            else:
                yield batch


def find_wide(dataset: Any) -> list[bool]:
    """For each dataset dict, whether its image is wider than high; unknown sizes are not.

    They are logged: Detectron2 takes them from the images, which here are not loaded by then.
    """
    is_wide, unknown = [], 0
    for i in range(len(dataset)):  # not each dataset ends by itself
        entry = dataset[i]
        known = entry if isinstance(entry, dict) else {}
        width, height = known.get("width"), known.get("height")
        unknown += width is None or height is None
        # NumPy's numbers compare to NumPy's booleans, which are no indices.
        is_wide.append(bool(width is not None and height is not None and width > height))
    if unknown:
        logger.warning(
            "DATALOADER.ASPECT_RATIO_GROUPING cannot group %d of %d images, whose dataset dicts "
            "have no width and height: batches need more padding; add both to the dicts",
            unknown,
            len(is_wide),
        )
    return is_wide
