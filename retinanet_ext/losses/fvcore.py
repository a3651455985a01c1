"""Drop-in for the losses of ``fvcore.nn``, by their names and with their arguments.

All can be called from TorchScript and compiled by it; so the names that end in ``_jit`` are the
same functions. Empty inputs have the mean 0, and an unknown reduction is refused.

The focal loss is finite for every gamma, and lean. fvcore raises 1 - p_t, which underflows to 0, to
a power whose derivative is then infinite: for 0 < gamma < 1 its gradient is NaN once a logit is
right by 17 or more. Here loss and gradient are made together, chunk by chunk, from expressions that
stay finite.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable
from torchvision.ops import generalized_box_iou_loss

from .focal import check_focal_arguments
from .kernels.chunked import CHUNK
from .kernels.gradients import gradient_scale, needs_grad, scale_saved_grads
from .precision import at_least_float32

__all__ = [
    "giou_loss",
    "sigmoid_focal_loss",
    "sigmoid_focal_loss_jit",
    "sigmoid_focal_loss_star",
    "sigmoid_focal_loss_star_jit",
    "smooth_l1_loss",
]


def sigmoid_focal_loss(
    inputs: Tensor,
    targets: Tensor,
    alpha: float = -1,
    gamma: float = 2,
    reduction: str = "none",
) -> Tensor:
    """Focal loss of independent sigmoids against targets of the same shape.

    With p = sigmoid(x), p_t = p t + (1 - p)(1 - t) and alpha_t = alpha t + (1 - alpha)(1 - t), each
    entry costs alpha_t (1 - p_t)^gamma BCE(p, t). Unlike fvcore's, float64 stays float64, and an
    alpha out of range is refused. In TorchScript, the same numbers take more memory.

    Args:
        inputs: logits x, any shape; half precision is computed, and returned, in float32.
        targets: t in [0, 1], shaped like ``inputs``, of any dtype; no gradient reaches them.
        alpha: weight of t = 1; 1 - alpha goes to t = 0. -1 weighs all by 1.
        gamma: focusing parameter; 0 is cross entropy.
        reduction: "none", "mean" or "sum". Besides the gradient, the last two make nothing of the
            size of ``inputs``.

    Raises:
        ValueError: if the shapes differ, alpha, gamma or reduction is out of range, or ``targets``
            require a gradient.
    """
    if torch.jit.is_scripting():
        return _reduce(_scripted_focal_loss(inputs, targets, alpha, gamma), reduction)
    check_focal_arguments(alpha, gamma)
    if reduction not in ("none", "mean", "sum"):
        raise ValueError(f"reduction must be 'none', 'mean' or 'sum', got '{reduction}'")
    if targets.shape != inputs.shape:
        raise ValueError(
            f"targets must have the shape of inputs, {tuple(inputs.shape)}, got "
            f"{tuple(targets.shape)}"
        )
    if targets.requires_grad:
        raise ValueError("targets require a gradient, which this loss has not; detach() them")
    settings = (float(alpha), float(gamma), reduction == "none", needs_grad([inputs]))
    loss = _ElementwiseFocalLoss.apply(inputs, targets, settings)
    return loss / max(1, inputs.numel()) if reduction == "mean" else loss


def sigmoid_focal_loss_star(
    inputs: Tensor,
    targets: Tensor,
    alpha: float = -1,
    gamma: float = 1,
    reduction: str = "none",
) -> Tensor:
    """FL* (arXiv 1708.02002, Appendix A) without its shift, -log(sigmoid(gamma x_t)) / gamma.

    :func:`retinanet_ext.losses.focal_loss_star` has the shift beta, too.

    Args:
        inputs: logits x, any shape.
        targets: t in [0, 1], shaped like ``inputs``; x_t is (2t - 1) x.
        alpha: weight of t = 1; 1 - alpha goes to t = 0. -1 weighs all by 1.
        gamma: steepness, > 0.
        reduction: "none", "mean" or "sum".

    Raises:
        ValueError: if gamma or the reduction is out of range.
    """
    if gamma <= 0:
        raise ValueError("gamma of FL* must be > 0")
    x = _at_least_float32(inputs)
    t = targets.to(x.dtype)
    loss = -F.logsigmoid(gamma * (x * (2 * t - 1))) / gamma
    if alpha >= 0:
        loss = loss * (alpha * t + (1 - alpha) * (1 - t))
    return _reduce(loss, reduction)


def giou_loss(boxes1: Tensor, boxes2: Tensor, reduction: str = "none", eps: float = 1e-7) -> Tensor:
    """1 - generalized IoU (arXiv 1902.09630) of pairs of boxes; torchvision's.

    Args:
        boxes1, boxes2: (P, 4) or (4,), XYXY with x1 <= x2 and y1 <= y2.
        reduction: "none", "mean" or "sum".
        eps: added to divisors.

    Raises:
        ValueError: if the reduction is unknown.
    """
    loss = generalized_box_iou_loss(boxes1, boxes2, reduction="none", eps=eps)
    return _reduce(loss, reduction)


def smooth_l1_loss(input: Tensor, target: Tensor, beta: float, reduction: str = "none") -> Tensor:
    """Smooth L1 (arXiv 1504.08083, Eq. 3); PyTorch's, with fvcore's order of arguments.

    Args:
        input, target: of the same shape.
        beta: |difference| at which the quadratic part ends; below 1e-5 it is L1.
        reduction: "none", "mean" or "sum".

    Raises:
        ValueError: if the reduction is unknown.
    """
    if beta < 1e-5:
        return _reduce(F.l1_loss(input, target, reduction="none"), reduction)
    return _reduce(F.smooth_l1_loss(input, target, reduction="none", beta=beta), reduction)


sigmoid_focal_loss_jit = sigmoid_focal_loss
sigmoid_focal_loss_star_jit = sigmoid_focal_loss_star


def _reduce(loss: Tensor, reduction: str) -> Tensor:
    if reduction == "none":
        return loss
    if reduction == "sum":
        return loss.sum()
    if reduction == "mean":
        return loss.sum() / max(1, loss.numel())
    raise ValueError("reduction must be 'none', 'mean' or 'sum', got '" + reduction + "'")


def _at_least_float32(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()


def _scripted_focal_loss(inputs: Tensor, targets: Tensor, alpha: float, gamma: float) -> Tensor:
    """Elementwise, by operations that TorchScript knows; as finite as the other."""
    x = _at_least_float32(inputs)
    t = targets.to(x.dtype)
    bce = -(t * F.logsigmoid(x) + (1 - t) * F.logsigmoid(-x))
    # 1 - p_t without taking a difference; the power of what underflows, in
    # float32, has no derivative.
    wrong = torch.sigmoid(x) * (1 - t) + torch.sigmoid(-x) * t
    loss = bce * torch.exp(gamma * torch.log(wrong.clamp(min=1.2e-38)))
    if alpha >= 0:
        loss = loss * (alpha * t + (1 - alpha) * (1 - t))
    return loss


class _ElementwiseFocalLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, inputs: Tensor, targets: Tensor, settings: tuple) -> Tensor:
        alpha, gamma, keep_losses, wanted = settings
        # In the order of memory a dense tensor of any layout is flat without a copy.
        order = sorted(range(inputs.dim()), key=inputs.stride, reverse=True)
        x, t = inputs.permute(order).reshape(-1), targets.permute(order).reshape(-1)
        ctx.scale = gradient_scale(x.dtype)
        gradient = torch.empty_like(x) if wanted else None
        losses = torch.empty_like(x, dtype=at_least_float32(x[:0]).dtype) if keep_losses else None
        total = x.new_zeros((), dtype=torch.float64)
        for part in _slices(x):
            loss, slope = _loss_and_slope(at_least_float32(x[part]), t[part], alpha, gamma, wanted)
            if losses is None:
                total += loss.sum()
            else:
                losses[part] = loss
            if gradient is not None and slope is not None:
                gradient[part] = slope.mul_(ctx.scale)
        ctx.gradients = [None if gradient is None else _unflatten(gradient, inputs, order)]
        if losses is not None:
            return _unflatten(losses, inputs, order)
        return total.to(at_least_float32(x[:0]).dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        return *scale_saved_grads(ctx, grad_output), None, None


def _slices(x: Tensor) -> list[slice]:
    size = CHUNK.get(x.device.type, CHUNK["cpu"])
    return [slice(i, i + size) for i in range(0, x.numel(), size)]


def _unflatten(flat: Tensor, like: Tensor, order: list[int]) -> Tensor:
    """``flat``, whose entries follow the dimensions ``order``, in the shape of ``like``."""
    back = sorted(range(len(order)), key=order.__getitem__)
    return flat.view([like.shape[i] for i in order]).permute(back)


def _loss_and_slope(
    x: Tensor, targets: Tensor, alpha: float, gamma: float, with_slope: bool
) -> tuple[Tensor, Tensor | None]:
    """Elementwise loss and derivative of one chunk, by distance |x| from indecision.

    With e = exp(-|x|), the outcome that x speaks for has probability 1 / (1 + e). If the target
    gives the other outcome the share w, then 1 - p_t = (w + e (1 - w)) / (1 + e) and
    BCE = w |x| + log(1 + e): no small number is made by taking the difference of larger ones.
    """
    t = targets.to(x.dtype)
    speaks_for_1 = x >= 0
    distance = x.abs()
    w = torch.where(speaks_for_1, 1 - t, t)
    e = torch.exp(-distance)
    likelier = 1 / (1 + e)
    base = w + e * (1 - w)
    weight = (likelier * base) ** gamma
    if alpha >= 0:
        weight *= alpha * t + (1 - alpha) * (1 - t)
    bce = w * distance + torch.log1p(e)
    if not with_slope:
        return weight * bce, None
    # d BCE / d|x| and d log(1 - p_t) / d|x|; e / base is at most 1, and 0 where both underflow.
    bce_slope = (w - e * (1 - w)) * likelier
    log_slope = (2 * w - 1) * likelier * (e / base.clamp(min=torch.finfo(x.dtype).tiny))
    slope = weight * (bce_slope + gamma * bce * log_slope)
    return weight * bce, torch.where(speaks_for_1, slope, -slope)
