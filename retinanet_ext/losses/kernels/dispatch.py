"""Which implementation of the focal loss runs, and its place in autograd."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..layout import split_levels
from . import chunked
from .gradients import gradient_scale, needs_grad, scale_saved_grads

logger = logging.getLogger(__name__)

KERNELS = ("auto", "reference", "chunked", "triton")
"""auto: triton on CUDA if it runs there, else chunked. reference: the definition, by autograd."""

_triton_runs = True  # until it fails once


def check_kernel(kernel: str) -> None:
    """Raise ValueError unless ``kernel`` is one of :data:`KERNELS`."""
    if kernel not in KERNELS:
        raise ValueError(f"kernel must be one of {', '.join(KERNELS)}, got '{kernel}'")


def fused_focal_loss(
    logits: Sequence[Tensor],
    labels: Tensor,
    num_classes: int,
    alpha: float,
    gamma: float,
    kernel: str = "auto",
) -> Tensor:
    """Sum of :func:`retinanet_ext.losses.sigmoid_focal_loss`; its gradient is made on the way.

    Equal to the reference within float rounding; besides the gradient it needs no memory that grows
    with the logits. The gradient cannot be differentiated again.
    """
    settings = (num_classes, alpha, gamma, kernel, needs_grad(logits))
    return _FusedFocalLoss.apply(labels, settings, *logits)


class _FusedFocalLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, labels: Tensor, settings: tuple, *logits: Tensor) -> Tensor:
        num_classes, alpha, gamma, kernel, wanted = settings
        ctx.scale = gradient_scale(logits[0].dtype)
        total, ctx.gradients = focal_loss_and_gradient(
            logits, labels, num_classes, alpha, gamma, wanted, ctx.scale, kernel=kernel
        )
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        return None, None, *scale_saved_grads(ctx, grad_output)


def focal_loss_and_gradient(
    logits: Sequence[Tensor],
    labels: Tensor,
    num_classes: int,
    alpha: float,
    gamma: float,
    with_gradient: bool = True,
    scale: float = 1.0,
    kernel: str = "auto",
) -> tuple[Tensor, list[Tensor]]:
    """:func:`.chunked.focal_loss_and_gradient`, or another kernel that does the same.

    Raises:
        ValueError: if ``kernel`` is "triton" and the tensors are not on CUDA.
        ImportError: if ``kernel`` is "triton" and Triton is missing.
    """
    arguments = (logits, labels, num_classes, alpha, gamma, with_gradient, scale)
    if kernel == "triton":
        return _triton_focal(logits[0].device).focal_loss_and_gradient(*arguments)
    if kernel == "auto" and logits[0].is_cuda:
        split_levels(logits, labels, num_classes)  # the caller's errors are not Triton's
        result = by_triton_where_it_runs(arguments)
        if result is not None:
            return result
    return chunked.focal_loss_and_gradient(*arguments)


def _triton_focal(device: torch.device) -> Any:
    """The Triton kernel's module, or an error that says why it cannot run on ``device``."""
    if importlib.util.find_spec("triton") is None:
        raise ImportError(
            "kernel is 'triton' but Triton is not installed; run pip install triton, or take "
            "kernel 'auto' or 'chunked'"
        )
    from . import triton_focal

    if device.type != "cuda" and not triton_focal.INTERPRETED:
        raise ValueError(
            f"kernel is 'triton' but the logits are on '{device}'; move them to a CUDA device, "
            "take kernel 'auto' or 'chunked', or set TRITON_INTERPRET=1 before Triton is imported"
        )
    return triton_focal


def by_triton_where_it_runs(arguments: tuple) -> tuple[Tensor, list[Tensor]] | None:
    """The Triton kernel's result; None where Triton is missing or has failed before or now."""
    global _triton_runs
    if not _triton_runs or importlib.util.find_spec("triton") is None:
        return None
    try:
        return _triton_focal(arguments[0][0].device).focal_loss_and_gradient(*arguments)
    except torch.cuda.OutOfMemoryError:
        raise
    # An old GPU, no C compiler, a Triton that does not fit PyTorch: each fails in its own way.
    except Exception as error:
        _triton_runs = False
        logger.warning(
            "The Triton kernel of the focal loss does not run here (%s: %s). The chunked one takes "
            "over, with the same results but slower; kernel 'triton' shows the whole error.",
            type(error).__name__,
            error,
        )
        return None
