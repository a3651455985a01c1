"""The arithmetic that both sides compute in."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch

from ..errors import InputError

__all__ = ["PRECISIONS", "autocast", "check_precision", "full_precision", "products"]

PRECISIONS = ("float32", "tf32", "bfloat16", "float16")
"""tf32: float32 whose products a GPU rounds to 10 bits, PyTorch's default for convolutions there.
bfloat16 and float16: by autocast."""


def check_precision(precision: str, device: str) -> None:
    """Raise InputError where ``device`` does not compute in ``precision``."""
    if precision not in PRECISIONS:
        raise InputError(f"--precision is '{precision}'; use {', '.join(PRECISIONS)}")
    if not device.startswith("cuda") and precision in ("tf32", "float16"):
        raise InputError(
            f"--precision {precision} needs a GPU, but the device is '{device}'; use float32 or "
            "bfloat16"
        )


def autocast(precision: str, device: str) -> contextlib.AbstractContextManager[Any]:
    """The context that the half ones of :data:`PRECISIONS` compute forward in."""
    if precision not in ("bfloat16", "float16"):
        return contextlib.nullcontext()
    return torch.autocast(torch.device(device).type, getattr(torch, precision))


def products(precision: str) -> contextlib.AbstractContextManager[None]:
    """The context in which a GPU multiplies float32 as it is, or in TF32 (the half ones too)."""
    return _tf32(precision != "float32")


def full_precision() -> contextlib.AbstractContextManager[None]:
    """Convolve in true float32 on CUDA, whose default (TF32) rounds by a thousandth."""
    return _tf32(False)


@contextlib.contextmanager
def _tf32(allowed: bool) -> Iterator[None]:
    backends: tuple[Any, ...] = (torch.backends.cudnn, torch.backends.cuda.matmul)
    before = [backend.allow_tf32 for backend in backends]
    for backend in backends:
        backend.allow_tf32 = allowed
    try:
        yield
    finally:
        for backend, value in zip(backends, before, strict=True):
            backend.allow_tf32 = value
