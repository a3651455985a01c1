"""Which implementation of the focal loss runs, and its place in autograd."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .chunked import focal_loss_and_gradient

KERNELS = ("auto", "reference")


def check_kernel(kernel: str) -> None:
    """Raise ValueError unless ``kernel`` is one of :data:`KERNELS`."""
    if kernel not in KERNELS:
        raise ValueError(f"kernel must be one of {', '.join(KERNELS)}, got '{kernel}'")


def fused_focal_loss(
    logits: Sequence[Tensor], labels: Tensor, num_classes: int, alpha: float, gamma: float
) -> Tensor:
    """Sum of :func:`retinanet_ext.losses.sigmoid_focal_loss`; its gradient is made on the way.

    Equal to the reference within float rounding; besides the gradient it needs no memory that grows
    with the logits. The gradient cannot be differentiated again.
    """
    return _FusedFocalLoss.apply(labels, num_classes, alpha, gamma, *logits)


class _FusedFocalLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, labels: Tensor, num_classes: int, alpha: float, gamma: float, *logits: Tensor
    ) -> Tensor:
        wanted = any(ctx.needs_input_grad[4:])
        total, ctx.gradients = focal_loss_and_gradient(
            logits, labels, num_classes, alpha, gamma, with_gradient=wanted
        )
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        if _graph_is_kept():
            return (None, None, None, None, *(g * grad_output for g in ctx.gradients))
        # Nobody else will ask for these: scaling them in place saves a copy of the logits' size.
        gradients, ctx.gradients = ctx.gradients, None
        return (None, None, None, None, *(g.mul_(grad_output) for g in gradients))


def _graph_is_kept() -> bool:
    """Whether backward runs with ``retain_graph=True``; True where PyTorch does not tell."""
    query = getattr(torch._C._autograd, "_get_current_graph_task_keep_graph", None)
    return True if query is None else bool(query())
