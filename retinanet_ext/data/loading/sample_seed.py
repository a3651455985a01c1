"""Samples whose random numbers follow only from a run's seed and their place in the run."""

from __future__ import annotations

import hashlib
import logging
import random
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from detectron2.utils.serialize import PicklableWrapper
from torch.utils.data import Dataset, get_worker_info

from ...random_state import random_state_kept

__all__ = ["SeededSamples", "seed_generators"]

logger = logging.getLogger(__name__)

MAX_TRIES = 1000
"""Images in a row for which a mapper may return None, which asks for another image."""


def seed_generators(seed: int, draw: int) -> None:
    """Seed Python's ``random``, numpy's global generator and PyTorch's CPU generator.

    Args:
        seed: of the run.
        draw: a number; states of neighbouring ones, or of neighbouring seeds, are unrelated.
    """
    # Not seed + draw: draw 1 of seed 0 would then be draw 0 of seed 1.
    digest = hashlib.blake2b(
        f"{seed}:{draw}".encode()
    ).digest()  # 64 bytes, which machines agree on
    random.seed(digest[:24])
    np.random.seed(np.frombuffer(digest[24:56], dtype="<u4"))
    # Not torch.manual_seed, which also seeds the devices that the model is on.
    torch.default_generator.manual_seed(int.from_bytes(digest[56:], "little"))


class SeededSamples(Dataset):
    """Mapped images, asked for by (index, draw): the draw decides on their random numbers.

    The same pair gives the same sample in every process. The random state of a process that is no
    worker of a loader stays as it is.
    """

    def __init__(self, dataset: Any, mapper: Callable[[Any], Any], seed: int):
        """
        Args:
            dataset: map-style, such as Detectron2's ``DatasetFromList`` of dataset dicts.
            mapper: takes one of its entries; None as a result asks for another image at random.
            seed: of the run.
        """
        self.dataset = dataset
        self.mapper = PicklableWrapper(mapper)  # any callable, also where workers are spawned
        self.seed = seed

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index_and_draw: tuple[int, int]) -> Any:
        """Return the mapped image.

        Raises:
            RuntimeError: the mapper returned None for MAX_TRIES images in a row.
        """
        index, draw = index_and_draw
        # A worker has no use for its own state.
        with random_state_kept() if get_worker_info() is None else nullcontext():
            seed_generators(self.seed, draw)
            for _ in range(MAX_TRIES):
                sample = self.mapper(self.dataset[index])
                if sample is not None:
                    return sample
                index = random.randrange(len(self.dataset))
        raise RuntimeError(
            f"the dataset mapper returned None for {MAX_TRIES} images in a row, which asks for "
            "another image each time; return None only for the few images to be left out"
        )
