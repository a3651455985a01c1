"""The same numbers from the same run: the seed of each iteration, and DETERMINISTIC.

The random numbers of an iteration are a function of seed, process and iteration. With
DETERMINISTIC, operations that cannot give the same bits twice raise an error that names them.

On the CPU the parts of this package add up in an order that does not depend on which thread is
faster: a run gives the same bits each time, with or without this key, while the number of threads
and of processes stays the same. On a GPU, and for operations of other libraries, it takes the key.
"""

from __future__ import annotations

import os

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.engine import HookBase
from detectron2.utils import comm
from detectron2.utils.env import seed_all_rng

from ...config.run_rules import check_determinism
from ...errors import InputError

__all__ = ["SeedEachStep", "make_deterministic", "step_seed"]

CUBLAS_KEY = "CUBLAS_WORKSPACE_CONFIG"
# The two that NVIDIA documents as giving the same bits; the first is the faster one.
CUBLAS_VALUES = (":4096:8", ":16:8")


def make_deterministic(cfg: CfgNode) -> None:
    """Have PyTorch use deterministic algorithms only, if ``cfg.DETERMINISTIC``; for good.

    Call it in every process, before the first matrix product on a GPU. An operation that has no
    deterministic way then raises PyTorch's RuntimeError, which names it.

    Raises:
        ValueError: there is no seed, cuDNN is to choose its algorithms by their speed, or the
            environment has a value for cuBLAS that is not deterministic.
    """
    check_determinism(cfg)
    if not cfg.DETERMINISTIC:
        return
    workspace = os.environ.setdefault(CUBLAS_KEY, CUBLAS_VALUES[0])
    if workspace not in CUBLAS_VALUES:
        raise InputError(
            f"DETERMINISTIC is True but the environment variable {CUBLAS_KEY} is '{workspace}'; "
            f"unset it, or set it to {' or '.join(CUBLAS_VALUES)}"
        )
    torch.backends.cudnn.benchmark = False
    torch.use_deterministic_algorithms(True)
    # On by default, it fills each new tensor: time spent to catch reads of uninitialized memory.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def step_seed(run_seed: int, rank: int, iteration: int) -> int:
    """The seed of one process in one iteration, in [0, 2^32)."""
    return int(np.random.SeedSequence([run_seed, rank, iteration]).generate_state(1)[0])


class SeedEachStep(HookBase):
    """Seed Python's, NumPy's and PyTorch's generators before each iteration.

    A resumed run then draws the numbers that the uninterrupted one draws, whatever the evaluations,
    drawings and hooks in between have drawn, and no checkpoint has to hold a generator's state.
    """

    def before_step(self) -> None:
        """Seed for the iteration that begins; reads the trainer's ``run_seed``."""
        seed_all_rng(step_seed(self.trainer.run_seed, comm.get_rank(), self.trainer.iter))
