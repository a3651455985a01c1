"""Focal loss and its gradient as one Triton kernel per level, for CUDA.

Each logit is read once and its gradient written once, in the order in which they lie in memory; the
labels are read from the (N, R) tensor itself. With z = x for a negative and z = -x for the positive
entry of an anchor, p = sigmoid(z) and s = softplus(z), every entry costs w p^gamma s and has the
slope +-w p^gamma (gamma (1 - p) s + p), w being 1 - alpha or alpha: no entry needs a second look.

Importing this module needs Triton; `dispatch.py` imports it only where it is going to run. With
TRITON_INTERPRET=1 in the environment beforehand, it also runs on the CPU, slowly, for tests.
"""

# Triton reads the hints of a kernel itself and takes no others than its own.
# mypy: allow-untyped-defs, allow-incomplete-defs

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..layout import split_levels
from . import chunked

# Anchors and classes of a tile: long where neighbours in memory are neighbouring locations, wide
# where they are neighbouring classes; compiled for sm_90, float32 takes 64 registers per thread.
# The fastest of 15 choices on an H100, as are the classes of a program.
TILE = {False: (128, 8), True: (64, 16)}
# Tiles of a program come one after the other and share its labels.
CLASSES_PER_PROGRAM = {False: 8, True: 64}
WARPS = 4


@triton.jit
def _loss_and_slope(z, gamma, POWER: tl.constexpr):
    # p^gamma s and its derivative with respect to z. One exponential and one division give p, 1 - p
    # and both softplus(z) and softplus(-z) = -log p, without a division by p or 1 - p.
    e = tl.exp(-tl.abs(z))
    one, two = 1.0 + e, 2.0 + e
    inverse = 1.0 / (one * two)
    larger = two * inverse
    smaller = e * larger
    p = tl.where(z >= 0, larger, smaller)
    q = tl.where(z >= 0, smaller, larger)

    # log(1 + e) = 2 artanh(t) with t = e / (2 + e) <= 1/3; seven terms reach float32's precision,
    # also where 1 + e would lose the digits of a small e.
    t = e * one * inverse
    y = t * t
    series = 1.0 / 13.0
    series = series * y + 1.0 / 11.0
    series = series * y + 1.0 / 9.0
    series = series * y + 1.0 / 7.0
    series = series * y + 1.0 / 5.0
    series = series * y + 1.0 / 3.0
    log1p_e = 2.0 * t * (series * y + 1.0)
    s = tl.maximum(z, 0.0) + log1p_e

    if POWER == 0:
        power = p * 0.0 + 1.0
    elif POWER == 1:
        power = p
    elif POWER == 2:
        power = p * p
    else:
        power = tl.exp(-gamma * (tl.maximum(-z, 0.0) + log1p_e))
    return power * s, power * (gamma * q * s + p)


@triton.jit
def _focal_kernel(
    logits,
    gradient,
    labels,
    partial_sums,
    num_rows,
    num_locations,
    num_anchors,
    num_classes,
    image_stride,
    channel_stride,
    location_stride,
    gradient_image_stride,
    gradient_channel_stride,
    gradient_location_stride,
    label_image_stride,
    label_stride,
    negative_weight,
    positive_weight,
    gamma,
    scale,
    POWER: tl.constexpr,
    CHANNELS_LAST: tl.constexpr,
    WIDE: tl.constexpr,
    WITH_GRADIENT: tl.constexpr,
    ROWS: tl.constexpr,
    CLASSES: tl.constexpr,
    CLASSES_PER_PROGRAM: tl.constexpr,
):
    # A row is an anchor of an image. Rows are counted in the order of memory, so that neighbours
    # read neighbours.
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    if CHANNELS_LAST:
        anchor = row % num_anchors
        location = row // num_anchors % num_locations
    else:
        location = row % num_locations
        anchor = row // num_locations % num_anchors
    image = row // (num_locations * num_anchors)
    if WIDE:  # 2^31 entries or more, as with K = 10000; narrow offsets take half the registers
        image, location, anchor = image.to(tl.int64), location.to(tl.int64), anchor.to(tl.int64)
    first_channel = anchor * num_classes

    in_level = row < num_rows
    label_offset = image * label_image_stride + (location * num_anchors + anchor) * label_stride
    label = tl.load(labels + label_offset, mask=in_level, other=-1)
    offset = image * image_stride + first_channel * channel_stride + location * location_stride
    gradient_offset = (
        image * gradient_image_stride
        + first_channel * gradient_channel_stride
        + location * gradient_location_stride
    )

    total = tl.zeros((CLASSES, ROWS), tl.float32)
    first = tl.program_id(1) * CLASSES_PER_PROGRAM
    for start in range(first, min(first + CLASSES_PER_PROGRAM, num_classes), CLASSES):
        k = start + tl.arange(0, CLASSES)
        exists = (k < num_classes)[:, None] & in_level[None, :]
        counts = exists & (label >= 0)[None, :]
        wide_k = k.to(offset.dtype)[:, None]
        x = tl.load(logits + (offset[None, :] + wide_k * channel_stride), mask=exists, other=0.0)
        x = x.to(tl.float32)
        positive = k[:, None] == label[None, :]
        loss, slope = _loss_and_slope(tl.where(positive, -x, x), gamma, POWER)
        weight = tl.where(positive, positive_weight, negative_weight)
        weight = tl.where(counts, weight, 0.0)
        total += weight * loss
        if WITH_GRADIENT:
            signed = tl.where(positive, -weight, weight) * slope * scale
            target = gradient + (gradient_offset[None, :] + wide_k * gradient_channel_stride)
            tl.store(target, signed.to(gradient.dtype.element_ty), mask=exists)
    program = tl.program_id(1) * tl.num_programs(0) + tl.program_id(0)
    tl.store(partial_sums + program, tl.sum(total))


INTERPRETED = not isinstance(_focal_kernel, triton.JITFunction)
"""Whether Triton's interpreter runs the kernel, on the CPU."""


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

    Arguments and results are those of :func:`.chunked.focal_loss_and_gradient`, which also takes
    over float64. Nothing waits for the device, and the result does not change from run to run.
    """
    if logits[0].dtype == torch.float64:
        return chunked.focal_loss_and_gradient(
            logits, labels, num_classes, alpha, gamma, with_gradient, scale
        )
    pairs = [(_addressable(x), y) for x, y in split_levels(logits, labels, num_classes)]
    gradients = [torch.empty_like(x) if with_gradient else x for x, _ in pairs]
    with torch.cuda.device_of(labels):  # Triton launches on the current device
        sums = [
            _launch(x, y, gradient, num_classes, alpha, gamma, with_gradient, scale)
            for (x, y), gradient in zip(pairs, gradients, strict=True)
        ]
    total = torch.cat(sums).sum(dtype=torch.float64).float()
    return total, gradients if with_gradient else []


def _launch(
    x: Tensor,
    labels: Tensor,
    gradient: Tensor,
    num_classes: int,
    alpha: float,
    gamma: float,
    with_gradient: bool,
    scale: float,
) -> Tensor:
    """Run the kernel over one level; return its programs' sums."""
    channels_last = x.stride(1) == 1
    rows, classes = TILE[channels_last]
    per_program = CLASSES_PER_PROGRAM[channels_last]
    grid = triton.cdiv(labels.numel(), rows), triton.cdiv(num_classes, per_program)
    sums = torch.empty(grid[0] * grid[1], dtype=torch.float32, device=x.device)
    if sums.numel() == 0:
        return sums
    _focal_kernel[grid](
        x,
        gradient,
        labels,
        sums,
        labels.numel(),
        x.shape[2] * x.shape[3],
        x.shape[1] // num_classes,
        num_classes,
        *_strides(x),
        *_strides(gradient),
        *labels.stride(),
        float(1 - alpha if alpha >= 0 else 1),
        float(alpha if alpha >= 0 else 1),
        float(gamma),
        float(scale),
        POWER=int(gamma) if gamma in (0, 1, 2) else -1,
        CHANNELS_LAST=channels_last,
        WIDE=max(_extent(x), _extent(gradient)) >= 2**31,
        WITH_GRADIENT=with_gradient,
        ROWS=rows,
        CLASSES=min(classes, triton.next_power_of_2(num_classes)),
        CLASSES_PER_PROGRAM=per_program,
        enable_fp_fusion=True,
        num_warps=WARPS,
    )
    return sums


def _addressable(x: Tensor) -> Tensor:
    """``x``, or a copy where one stride does not lead from each location to the next."""
    height, width = x.shape[2:]
    steady = height == 1 or width == 1 or x.stride(2) == width * x.stride(3)
    return x if steady else x.contiguous()


def _strides(x: Tensor) -> tuple[int, int, int]:
    """Steps in memory from image to image, channel to channel, location to location."""
    return x.stride(0), x.stride(1), x.stride(2) if x.shape[3] == 1 else x.stride(3)


def _extent(x: Tensor) -> int:
    """Entries of memory from the first of ``x`` to its last."""
    return 1 + sum((size - 1) * step for size, step in zip(x.shape, x.stride(), strict=True))
