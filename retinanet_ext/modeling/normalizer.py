"""The running number of positives that both losses are divided by."""

from __future__ import annotations

from typing import Any

import torch
from detectron2.utils import comm
from torch import Tensor, nn
from torch import distributed as dist


class LossNormalizer(nn.Module):
    """Running mean of the number of positive anchors in the whole batch, over all processes.

    The paper divides by the anchors assigned to an object (Sec. 4.1, "Training"); with a small
    batch that number jumps, so Detectron2 smooths it, with one plain attribute in each process that
    no checkpoint holds. Here it is a buffer: a resumed run goes on with the same number. It counts
    the positives of all processes, which makes W processes equal one with the same total batch.
    """

    def __init__(self, momentum: float = 0.9, initial: float = 100.0):
        """
        Args:
            momentum: share of the old mean kept at each step, in [0, 1).
            initial: mean before the first step, in anchors.
        """
        super().__init__()
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum must be in [0, 1), got {momentum}")
        self.momentum = momentum
        self.register_buffer("mean", torch.tensor(float(initial)))
        self.mean: Tensor

    @torch.no_grad()
    def forward(self, num_pos: int) -> Tensor:
        """Take this process's number of positives; return the scalar to divide its losses by.

        The mean moves only in training mode. The result is the mean's share of one process, since
        DistributedDataParallel averages gradients over processes.
        """
        world_size = comm.get_world_size()
        if self.training:
            total = torch.full_like(self.mean, num_pos)
            if world_size > 1:
                dist.all_reduce(total)
            self.mean.lerp_(total.clamp(min=1.0), 1.0 - self.momentum)
        return self.mean / world_size

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        # Detectron2's checkpoints have no normalizer: that is no missing key.
        state_dict.setdefault(prefix + "mean", self.mean)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
