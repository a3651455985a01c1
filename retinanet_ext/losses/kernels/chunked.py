"""Focal loss and its gradient in one pass over cache-sized chunks, with plain PyTorch operations.

Nearly all entries of a dense head are negatives. So every entry is first treated as one, without
looking at its label; ignored anchors are masked out, and the few positives are corrected at the
end. Nothing as large as the logits is made, save the gradient itself.

With p = sigmoid(x) and s = softplus(x) = -log(1 - p), a negative costs (1 - alpha) p^gamma s, and
its gradient is (1 - alpha) p^gamma (gamma (1 - p) s + p). Neither divides by p or 1 - p, so both
are finite wherever x is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ...cores import parallel_map
from ..layout import level_view, split_levels
from ..precision import at_least_float32

# Entries per chunk: three float32 buffers of this size stay in a core's L2 cache, or in a GPU's.
CHUNK = {"cpu": 1 << 17, "cuda": 1 << 20}
SOFTPLUS_THRESHOLD = 40.0  # above it softplus(x) is x to double precision


def focal_loss_and_gradient(
    logits: Sequence[Tensor],
    labels: Tensor,
    num_classes: int,
    alpha: float,
    gamma: float,
    with_gradient: bool = True,
    scale: float = 1.0,
) -> tuple[Tensor, list[Tensor]]:
    """The loss's sum and its gradient with respect to each level's logits.

    Args:
        logits: L tensors (N, A*K, Hi, Wi); one that is neither contiguous nor in the channels_last
            format is copied.
        labels: (N, R) in {-1 ignore, 0..K-1 class, K background}.
        num_classes: K.
        alpha, gamma: see :func:`retinanet_ext.losses.focal_loss`.
        with_gradient: else the list is empty.
        scale: the gradient is multiplied by it before it is rounded to the logits' precision.

    Returns:
        A scalar in float32 or better, and L tensors like ``logits``.
    """
    total = labels.new_zeros((), dtype=torch.float64)
    gradients: list[Tensor] = []
    for x, level_labels in split_levels(logits, labels, num_classes):
        if not x.is_contiguous(memory_format=torch.channels_last):
            x = x.contiguous()
        gradient = torch.empty_like(x) if with_gradient else None
        blocks, y = as_blocks(x, level_labels, num_classes)
        slopes = None if gradient is None else as_blocks(gradient, level_labels, num_classes)[0]
        total += _negatives(blocks, y, alpha, gamma, scale, slopes)
        correct = _correct_few if x.device.type == "cpu" else _correct_without_waiting
        total += correct(blocks, y, alpha, gamma, scale, slopes)
        if gradient is not None:
            gradients.append(gradient)
    return total.to(at_least_float32(logits[0][:0]).dtype), gradients


def as_blocks(x: Tensor, labels: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
    """Views whose last dimensions are contiguous in memory, with the labels in the same order.

    Args:
        x: (N, A*K, Hi, Wi), contiguous or in the channels_last format.
        labels: (N, Hi*Wi*A).
        num_classes: K.

    Returns:
        (N, A, K, Hi, Wi) and (N, A, 1, Hi, Wi); or, in the channels_last format, where the classes
        of an anchor lie side by side, (N*Hi*Wi*A, 1, K, 1, 1) and (N*Hi*Wi*A, 1, 1, 1, 1).
    """
    if x.is_contiguous():
        return level_view(x, labels, num_classes)
    rows = x.permute(0, 2, 3, 1).view(-1, 1, num_classes, 1, 1)
    return rows, labels.reshape(-1, 1, 1, 1, 1)


class Scratch:
    """Three reused buffers of a chunk's size."""

    def __init__(self, like: Tensor):
        dtype = at_least_float32(like[:0]).dtype
        self.size = CHUNK.get(like.device.type, CHUNK["cpu"])
        self.buffers = torch.empty((3, self.size), dtype=dtype, device=like.device)

    def like(self, x: Tensor) -> list[Tensor]:
        """The buffers, shaped like ``x`` (larger ones where ``x`` exceeds a chunk)."""
        if x.numel() > self.buffers.shape[1]:
            self.buffers = self.buffers.new_empty((3, x.numel()))
        return [buffer[: x.numel()].view(x.shape) for buffer in self.buffers]


def chunks(x: Tensor, size: int) -> list[tuple[slice, slice, slice]]:
    """Indices that cut (N, A, K, Hi, Wi) into contiguous pieces of about ``size`` entries.

    A piece holds whole images, or whole anchors of one image, or whole classes of one anchor.
    """
    n, a, k, h, w = x.shape
    per_class, per_anchor, per_image = h * w, k * h * w, a * k * h * w
    images = max(1, size // max(1, per_image))
    anchors = a if images > 1 or per_image <= size else max(1, size // per_anchor)
    classes = k if anchors > 1 or per_anchor <= size else max(1, size // per_class)
    return [
        (slice(i, i + images), slice(j, j + anchors), slice(c, c + classes))
        for i in range(0, n, images)
        for j in range(0, a, anchors)
        for c in range(0, k, classes)
    ]


def _negatives(
    x: Tensor,
    y: Tensor,
    alpha: float,
    gamma: float,
    scale: float,
    gradient: Tensor | None,
) -> Tensor:
    """Loss of (N, A, K, Hi, Wi) logits as if all were negatives, without the ignored anchors."""
    weight = 1.0 - alpha if alpha >= 0 else 1.0
    mask = (y >= 0).to(at_least_float32(x[:0]).dtype)
    # One look at a small tensor spares a pass over the logits; on CUDA it would stall the queue.
    masked = (mask == 0).any(dim=-1).any(dim=-1) if x.device.type == "cpu" else None

    def make_worker() -> Callable[[tuple[slice, slice, slice]], Tensor]:
        scratch = Scratch(x)

        def work(index: tuple[slice, slice, slice]) -> Tensor:
            image, anchor, _ = index
            part = mask[image, anchor] if masked is None or masked[image, anchor].any() else None
            out = None if gradient is None else gradient[index]
            return weight * _chunk(x[index], part, gamma, weight * scale, out, scratch)

        return work

    indices = chunks(x, CHUNK.get(x.device.type, CHUNK["cpu"]))
    if x.device.type == "cpu":
        totals = parallel_map(indices, make_worker)
    else:
        work = make_worker()
        totals = [work(index) for index in indices]
    return torch.stack([x.new_zeros((), dtype=torch.float64), *totals]).sum()


def _chunk(
    x: Tensor,
    mask: Tensor | None,
    gamma: float,
    weight: float,
    out: Tensor | None,
    scratch: Scratch,
) -> Tensor:
    """Sum of p^gamma s over one chunk; its gradient times ``weight`` goes to ``out``."""
    p, s, w = scratch.like(x)
    if x.dtype != p.dtype:
        x = w.copy_(x)
    torch.sigmoid(x, out=p)
    torch.ops.aten.softplus.out(x, 1.0, SOFTPLUS_THRESHOLD, out=s)
    _power(p, gamma, w)
    if mask is not None:
        w.mul_(mask)
    total = torch.dot(w.flatten(), s.flatten()).double()
    if out is not None:
        # gamma (1 - p) s + p = gamma s + p (1 - gamma s)
        s.mul_(gamma)
        torch.addcmul(p, s, p, value=-1.0, out=p).add_(s).mul_(w)
        torch.mul(p, weight, out=out) if out.dtype == p.dtype else out.copy_(p.mul_(weight))
    return total


def _power(p: Tensor, gamma: float, out: Tensor) -> None:
    """p^gamma into ``out``, cheaply for the exponents that people use."""
    if gamma == 2.0:
        torch.mul(p, p, out=out)
    elif gamma == 1.0:
        out.copy_(p)
    elif gamma == 0.0:
        out.fill_(1.0)
    elif gamma == 0.5:
        torch.sqrt(p, out=out)
    else:
        torch.pow(p, gamma, out=out)


def _correct_few(
    x: Tensor, y: Tensor, alpha: float, gamma: float, scale: float, gradient: Tensor | None
) -> Tensor:
    """What the loss changes by when the entry of each positive's class counts as a positive.

    ``gradient`` is corrected in place. Shapes are those of :func:`as_blocks`.
    """
    n, a, _, h, w = ((y >= 0) & (y < x.shape[2])).nonzero(as_tuple=True)
    k = y[n, a, 0, h, w]
    change, slope = _correction(x[n, a, k, h, w].double(), alpha, gamma)
    if gradient is not None:
        gradient[n, a, k, h, w] = slope.mul_(scale).to(gradient.dtype)
    return change.sum()


def _correct_without_waiting(
    x: Tensor, y: Tensor, alpha: float, gamma: float, scale: float, gradient: Tensor | None
) -> Tensor:
    """:func:`_correct_few` over all anchors, since finding the few would wait for the device."""
    total = x.new_zeros((), dtype=torch.float64)
    anchors_per_image = max(1, y[:1].numel())
    images = max(1, CHUNK["cuda"] // 8 // anchors_per_image)
    for i in range(0, len(x), images):
        part, labels = x[i : i + images], y[i : i + images]
        k = labels.long().clamp(0, x.shape[2] - 1)
        is_positive = labels == k
        change, slope = _correction(at_least_float32(part.gather(2, k)), alpha, gamma)
        total += torch.where(is_positive, change, 0.0).sum(dtype=torch.float64)
        if gradient is not None:
            out = gradient[i : i + images]
            slope = slope.mul_(scale).to(out.dtype)
            out.scatter_(2, k, torch.where(is_positive, slope, out.gather(2, k)))
    return total


def _correction(x: Tensor, alpha: float, gamma: float) -> tuple[Tensor, Tensor]:
    """Loss of positive entries less that of the same entries as negatives; their gradient."""
    negative_weight, positive_weight = (1 - alpha, alpha) if alpha >= 0 else (1.0, 1.0)
    as_negative, _ = _positive(-x, gamma)
    loss, slope = _positive(x, gamma)
    return positive_weight * loss - negative_weight * as_negative, positive_weight * slope


def _positive(x: Tensor, gamma: float) -> tuple[Tensor, Tensor]:
    """Loss and gradient of entries whose truth is 1, elementwise."""
    q, s = torch.sigmoid(-x), F.softplus(-x, 1.0, SOFTPLUS_THRESHOLD)
    power = q**gamma
    return power * s, -power * (gamma * (1 - q) * s + q)
