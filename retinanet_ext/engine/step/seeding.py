"""Random numbers that depend on the run's seed and the iteration alone."""

from __future__ import annotations

import numpy as np
from detectron2.engine import HookBase
from detectron2.utils import comm
from detectron2.utils.env import seed_all_rng

__all__ = ["SeedEachStep", "step_seed"]


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
