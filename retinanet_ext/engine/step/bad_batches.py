"""Batches whose losses or gradients are not finite: found, reported, skipped or the end."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from detectron2.utils import comm
from torch import Tensor
from torch import distributed as dist

from ...compat import norm_of_all
from ..failures.nonfinite import NonFiniteLoss, RankReport, describe_nonfinite, files_of
from .micro_batches import Batch

__all__ = ["SkipBadBatches"]

logger = logging.getLogger(__name__)

GRADIENTS = "norm of the gradients"
"""Beside the names of the losses in a report."""

Report = Callable[[Any, Batch, dict[str, float]], str]


class SkipBadBatches:
    """Decides, in all processes alike, what becomes of a step whose numbers are not finite.

    Attributes:
        skipped: steps of the run that were skipped since something was not finite.
    """

    def __init__(self, max_skipped: int = 0, on_nonfinite: Report | None = None, hint: str = ""):
        """
        Args:
            max_skipped: how many batches may be skipped.
            on_nonfinite: called where a number is not finite, with the step, the batch and the
                numbers; returns the folder of its report, or "".
            hint: the end of the error's text.
        """
        self.max_skipped = max_skipped
        self.on_nonfinite = on_nonfinite
        self.hint = hint
        self.skipped = 0

    def examine(
        self, losses: dict[str, Tensor], gradients: Sequence[Tensor]
    ) -> tuple[dict[str, float], bool]:
        """This process's numbers by name, and whether those of all processes are finite.

        They are read here at once, where a step waits for the GPU to finish. A
        finite loss may have gradients that are not, and one step with them loses all weights. Where
        a loss of some process is not finite, gradients tell no more, and are left out.

        Args:
            losses: scalars by name.
            gradients: those of the step; their norm is looked at, too.
        """
        values = {name: loss.detach().float() for name, loss in losses.items()}
        if gradients:
            # In float32 at least: squares of half precision overflow early.
            wide = [x.detach() if x.element_size() > 2 else x.detach().float() for x in gradients]
            values[GRADIENTS] = norm_of_all(wide).float()
        row = torch.stack(list(values.values()))
        bad = ~row.isfinite()
        any_bad = torch.stack([bad[: len(losses)].any(), bad.any()]).float()
        if comm.get_world_size() > 1:
            dist.all_reduce(any_bad, op=dist.ReduceOp.MAX)
        *found, bad_loss, bad_number = torch.cat([row, any_bad]).tolist()
        numbers = dict(zip(values, found, strict=True))
        if bad_loss:
            numbers.pop(GRADIENTS, None)
        return numbers, not bad_number

    def skip(self, step: Any, batch: Batch, numbers: dict[str, float]) -> None:
        """Report a step whose numbers are not finite in some process, and count it.

        Args:
            step: the :class:`.train_step.TrainStep`, with the gradients of the step.
            batch: of this process.
            numbers: of :meth:`examine`.

        Raises:
            NonFiniteLoss: no more may be skipped.
        """
        folder = ""
        if not all(map(math.isfinite, numbers.values())) and self.on_nonfinite is not None:
            folder = self.on_nonfinite(step, batch, numbers)
        mine = RankReport(comm.get_rank(), numbers, files_of(batch), folder)
        text = describe_nonfinite(step.iter, comm.all_gather(mine))
        if self.skipped >= self.max_skipped:
            raise NonFiniteLoss(f"{text}. {self.hint}".strip())
        self.skipped += 1
        logger.warning(
            "%s. This step is skipped, %d of SOLVER.MAX_SKIPPED_BATCHES %d",
            text,
            self.skipped,
            self.max_skipped,
        )
