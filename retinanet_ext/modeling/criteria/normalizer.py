"""The number of anchors that both losses are divided by."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.utils import comm
from torch import Tensor, nn
from torch import distributed as dist

from ...errors import InputError, did_you_mean
from ...registry import node_of

NORMALIZERS = ("running_mean", "positives", "anchors", "constant")
"""Values of MODEL.RETINANET.LOSS_NORMALIZER, see :class:`LossNormalizer`."""


class MicroBatchedStep:
    """One training step whose batch goes through the network part by part.

    The number to divide by is known after the last part only. Until then, losses are divided by a
    ``provisional`` one; gradients and losses of the whole step, times ``factor``, are those of the
    whole batch.
    """

    def __init__(self, num_parts: int):
        self.num_parts = num_parts
        self.total: Tensor | None = None
        self.provisional: Tensor | None = None
        self.factor: Tensor | None = None
        """Scalar, once all parts are through; None where nothing is to be corrected."""

    def add(self, count: Tensor, provisional: Tensor | None) -> Tensor:
        """Count a part; return the provisional number.

        Args:
            count: anchors of the part over all processes.
            provisional: what to take; None: as if all parts had as many anchors as the first.
        """
        if self.provisional is None or self.total is None:
            if provisional is None:
                provisional = (count * self.num_parts).clamp(min=1.0)
            self.total, self.provisional = count, provisional.clone()
        else:
            self.total = self.total + count
        return self.provisional


class LossNormalizer(nn.Module):
    """What the losses of the whole batch, over all processes, are divided by; by ``kind``:

    - ``positives``: the positive anchors of this batch, at least 1, as in the paper (Sec. 4.1,
      "Training").
    - ``running_mean``: a running mean of that number, which jumps where the batch is small. So does
      Detectron2, with one plain attribute in each process that no checkpoint holds. Here it is a
      buffer: a resumed run continues with the same number. Other kinds do not use the buffer.
    - ``anchors``: all anchors of this batch, N * R of N images, the ignored ones too. The losses
      are some 1e3 times smaller then; the paper tells why it divides by the positives instead.
    - ``constant``: ``value``.

    The number of all processes makes W processes equal one with the same total batch.
    """

    def __init__(
        self,
        momentum: float = 0.9,
        initial: float = 100.0,
        kind: str = "running_mean",
        value: float = 100.0,
    ):
        """
        Args:
            momentum: fraction of the old mean kept at each step, in [0, 1).
            initial: mean before the first step, in anchors.
            kind: one of NORMALIZERS.
            value: the number for ``constant``, in anchors; finite and > 0.
        """
        super().__init__()
        if not 0 <= momentum < 1:
            raise InputError(f"momentum must be in [0, 1), got {momentum}")
        if kind not in NORMALIZERS:
            raise InputError(
                f"MODEL.RETINANET.LOSS_NORMALIZER is '{kind}'; set it to one of "
                f"{', '.join(NORMALIZERS)}.{did_you_mean(kind, NORMALIZERS)}"
            )
        if not 0 < value < math.inf:
            raise InputError(
                f"MODEL.RETINANET.LOSS_NORMALIZER_VALUE must be finite and > 0, got {value}"
            )
        self.momentum = momentum
        self.kind = kind
        self.value = float(value)
        self.register_buffer("mean", torch.tensor(float(initial)))
        self.mean: Tensor
        self._parts: MicroBatchedStep | None = None
        self._counts: list[int] | None = None

    @torch.no_grad()
    def forward(self, num_pos: int, num_anchors: int = 0) -> Tensor:
        """Take this process's numbers of anchors; return the scalar to divide its losses by.

        The result is the part of one process, since DistributedDataParallel averages gradients
        over processes. In evaluation mode the running mean does not move, and processes do not wait
        for each other: each counts its own batch.

        Args:
            num_pos: positive anchors of this process's batch.
            num_anchors: all its anchors, N * R; only ``anchors`` reads it.

        Raises:
            ValueError: if ``anchors`` is not given their number.
        """
        if self._counts is not None:
            self._counts.append(num_pos)
            return torch.ones_like(self.mean)
        if self.kind == "anchors" and num_anchors < 1:
            raise InputError(
                "LOSS_NORMALIZER 'anchors' divides by num_anchors, the anchors of all images of "
                f"the batch, which must be at least 1, got {num_anchors}"
            )
        world_size = comm.get_world_size()
        if self.kind == "constant":
            return torch.full_like(self.mean, self.value / world_size)
        count = num_anchors if self.kind == "anchors" else num_pos
        if self._parts is not None and self.training:
            provisional = self.mean if self.kind == "running_mean" else None
            return self._parts.add(self._sum(count), provisional) / world_size
        if self.kind == "running_mean":
            if self.training:
                self.mean.lerp_(self._over_processes(count), 1.0 - self.momentum)
            return self.mean / world_size
        if not self.training:
            return torch.full_like(self.mean, max(count, 1))
        return self._over_processes(count) / world_size

    def _over_processes(self, count: int) -> Tensor:
        """Sum of ``count`` over processes, at least 1."""
        return self._sum(count).clamp(min=1.0)

    def _sum(self, count: int) -> Tensor:
        total = torch.full_like(self.mean, count)
        if comm.get_world_size() > 1:
            dist.all_reduce(total)
        return total

    @contextlib.contextmanager
    def accumulate(self, num_parts: int) -> Iterator[MicroBatchedStep]:
        """Count the calls in training mode as parts of one step: gradient accumulation.

        The running mean moves once, when all parts are through.

        Args:
            num_parts: how many calls will follow.

        Yields:
            The step; its ``factor`` is there after the block.
        """
        step = self._parts = MicroBatchedStep(num_parts)
        try:
            yield step
        finally:
            self._parts = None
        if step.total is None or step.provisional is None:
            return
        true = step.total.clamp(min=1.0)
        if self.kind == "running_mean":
            with torch.no_grad():
                true = self.mean.lerp_(true, 1.0 - self.momentum)
        step.factor = step.provisional / true

    @contextlib.contextmanager
    def counting(self) -> Iterator[list[int]]:
        """Divide by 1 and count instead, in any mode, for sums over a whole dataset.

        The running mean stays as it is, and processes do not wait for each other.

        Yields:
            The positive anchors of each call so far; grows with each.
        """
        counts: list[int] = []
        before, self._counts = self._counts, counts
        try:
            yield counts
        finally:
            self._counts = before

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        # Detectron2's checkpoints have no normalizer: that is no missing key.
        state_dict.setdefault(prefix + "mean", self.mean)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


def build_loss_normalizer(cfg: CfgNode, node: CfgNode | None = None) -> LossNormalizer:
    """Build the normalizer that MODEL.RETINANET.LOSS_NORMALIZER names.

    Args:
        cfg: the config.
        node: the section to read. Default: ``MODEL.RETINANET``.

    Raises:
        ValueError: if that is no kind of normalizer, or LOSS_NORMALIZER_VALUE is not above 0.
    """
    node = node_of(cfg, node)
    return LossNormalizer(kind=node.LOSS_NORMALIZER, value=node.LOSS_NORMALIZER_VALUE)
