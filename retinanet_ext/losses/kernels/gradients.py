"""Gradients that were made in the forward pass, and how backward hands them out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ...compat import graph_is_kept


def needs_grad(tensors: Sequence[Tensor | None]) -> bool:
    """Whether autograd would record an operation on ``tensors``.

    Inside an autograd.Function this cannot be asked: there, gradients are always off, and
    ``needs_input_grad`` also tells True under ``torch.no_grad()``.
    """
    return torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in tensors)


def gradient_scale(dtype: torch.dtype) -> float:
    """What to multiply a gradient by while it waits in ``dtype`` for backward.

    In float16 the gradients of easy negatives would vanish before a GradScaler multiplies them. A
    focal loss's slope is at most about 1, so 4096 times as much stays far below 65504.
    """
    return 4096.0 if dtype == torch.float16 else 1.0


def scale_saved_grads(ctx: Any, grad_output: Tensor) -> list[Tensor | None]:
    """``ctx.gradients``, each times ``grad_output`` / ``ctx.scale``.

    Where the graph is not kept, nobody else will ask: they are scaled in place and let go of, so
    that no copy is made, and a leaf without a gradient takes its own over as it is.

    Raises:
        RuntimeError: if they were already handed out.
    """
    if ctx.gradients is None:
        raise RuntimeError(
            "the gradient of this focal loss was already handed out; call backward with "
            "retain_graph=True every time but the last"
        )
    gradients: list[Tensor | None] = ctx.gradients
    if ctx.scale != 1:
        grad_output = grad_output / ctx.scale
    if graph_is_kept():
        return [None if g is None else (g * grad_output).to(g.dtype) for g in gradients]
    ctx.gradients = None
    return [None if g is None else g.mul_(grad_output) for g in gradients]
