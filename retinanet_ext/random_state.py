"""The global random generators of Python, NumPy and PyTorch, left as they were."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import numpy as np
import torch

__all__ = ["random_state_kept"]


@contextmanager
def random_state_kept(cuda_devices: Iterable[int] = ()) -> Iterator[None]:
    """Put the generators back as they were before the block, also after an error in it.

    Args:
        cuda_devices: indices of the devices whose generators are put back, too; by default only
            those of the CPU are.
    """
    python, of_numpy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=sorted(cuda_devices)):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(of_numpy)
