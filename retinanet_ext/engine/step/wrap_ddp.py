"""The model in PyTorch's DistributedDataParallel."""

from __future__ import annotations

import inspect
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from detectron2.utils import comm
from torch import nn
from torch.nn.parallel import DistributedDataParallel

__all__ = ["no_sync", "wrap_ddp"]


def wrap_ddp(model: nn.Module) -> nn.Module:
    """Return ``model`` ready for several processes: itself where there is one process.

    Buffers are not broadcast at each step: batch statistics stay each process's own, as in
    Detectron2, and the detector reduces its loss normalizer by itself.
    """
    if comm.get_world_size() == 1:
        return model
    on_gpu = next(model.parameters()).is_cuda
    known = inspect.signature(DistributedDataParallel).parameters
    # Recent PyTorch deprecates the older name.
    sync = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
    options: dict[str, Any] = {sync: False}
    if on_gpu:  # on other devices no ids are accepted
        options["device_ids"] = [torch.cuda.current_device()]
    return DistributedDataParallel(model, **options)


def no_sync(model: nn.Module) -> AbstractContextManager[Any]:
    """Within the block, gradients of a wrapped model are not averaged over the processes."""
    return model.no_sync() if isinstance(model, DistributedDataParallel) else nullcontext()
