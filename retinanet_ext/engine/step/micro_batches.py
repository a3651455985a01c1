"""What a training step needs to go through a batch in parts, and to be undone."""

from __future__ import annotations

import itertools
from typing import Any

import torch
from detectron2.layers import FrozenBatchNorm2d
from detectron2.utils.events import EventStorage, get_event_storage
from torch import Tensor, nn

from ...errors import InputError, count

__all__ = ["Batch", "BufferSnapshot", "MicroBatchStorage", "split_batch"]

Batch = list[dict[str, Any]]
"""Detectron2's: one dict per image."""


class BufferSnapshot:
    """What a forward pass changes in a model beside gradients: statistics and normalizer."""

    def __init__(self, model: nn.Module):
        self._places = [
            (module, name)
            for module in model.modules()
            if not isinstance(module, FrozenBatchNorm2d)  # never changes, and has most of them
            for name, _ in module.named_buffers(recurse=False)
        ]
        self._copies: list[Tensor] = []

    @torch.no_grad()
    def save(self) -> None:
        """Keep what the buffers hold now."""
        self._copies = [getattr(module, name).clone() for module, name in self._places]

    @torch.no_grad()
    def restore(self) -> None:
        """Put back what was kept last, once."""
        for (module, name), copy in zip(self._places, self._copies, strict=False):
            getattr(module, name).copy_(copy)
        self.drop()

    def drop(self) -> None:
        """Forget what was kept."""
        self._copies = []


class MicroBatchStorage(EventStorage):
    """Takes what the model puts part by part; the means go to the storage in use, once."""

    def __enter__(self) -> MicroBatchStorage:
        self._outer = get_event_storage()
        self.iter = self._outer.iter
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        if error[0] is not None:
            return
        hints = self.smoothing_hints()
        for name, history in self.histories().items():
            values = [value for value, _ in history.values()]
            self._outer.put_scalar(name, sum(values) / len(values), smoothing_hint=hints[name])

    def put_image(self, *args: Any) -> None:
        self._outer.put_image(*args)

    def put_histogram(self, *args: Any, **kwargs: Any) -> None:
        self._outer.put_histogram(*args, **kwargs)


def split_batch(batch: Batch, parts: int) -> list[Batch]:
    """``batch`` in ``parts`` consecutive parts, of equal length where that divides.

    Raises:
        ValueError: there are fewer images than parts.
    """
    if len(batch) < parts:
        raise InputError(
            f"SOLVER.ACCUM_STEPS is {parts}, but a process has {count(len(batch), 'image')} per "
            "step; lower it, or raise SOLVER.IMS_PER_BATCH"
        )
    edges = [len(batch) * i // parts for i in range(parts + 1)]
    return [batch[start:end] for start, end in itertools.pairwise(edges)]
