"""Finding the few logits of a batch that matter, in one reading.

Letters: N images, L levels, A anchors per location, K classes, Hi x Wi locations of level i.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

# A logit this far under another one cannot round to a score above the other's.
LOGIT_MARGIN = 1e-3

# Logits whose maximum decides whether any of them is looked at.
_BLOCK = 64


def find_in_copy(logits: list[Tensor], limit: float) -> tuple[Tensor, Tensor]:
    """All logits above ``limit``, and their entries in (N, L, Hi, Wi, A, K), rising."""
    levels = [level.permute(0, 2, 3, 1).flatten(1) for level in logits]
    flat = torch.cat(levels, dim=1).flatten()
    # Not a number in Python: that would be rounded to the logits' precision, perhaps upwards.
    limits = torch.full((1,), limit, device=flat.device)
    entry = (flat > limits).nonzero().flatten()
    return flat[entry], entry


def find_by_level(
    logits: list[Tensor],
    num_classes: int,
    limit: float,
    topk: int,
    starts: list[int],
    image_size: int,
) -> tuple[Tensor, Tensor]:
    """The same of each level's ``topk`` largest at least, in any order."""
    values, entries = [], []
    for level, start in zip(logits, starts, strict=True):
        value, image, entry = _find_large(level, num_classes, limit, topk)
        values.append(value)
        entries.append(image * image_size + start + entry)
    return torch.cat(values), torch.cat(entries)


def _find_large(
    level: Tensor, num_classes: int, limit: float, topk: int
) -> tuple[Tensor, Tensor, Tensor]:
    """All logits above ``limit``, or fewer that hold the ``topk`` largest of each image.

    Returns:
        Of each: the value, its image, and its entry in the image's (Hi, Wi, A, K).
    """
    in_memory_order = level
    channels_last = not level.is_contiguous() and level.is_contiguous(
        memory_format=torch.channels_last
    )
    if channels_last:
        in_memory_order = level.permute(0, 2, 3, 1)
    flat = in_memory_order.flatten(1)
    image, position = _find_above(flat, limit, topk)
    value = flat[image, position]
    if channels_last:
        return value, image, position
    channel, location = divide(position, level.shape[2] * level.shape[3])
    anchor, class_ = divide(channel, num_classes)
    num_anchors = level.shape[1] // num_classes
    return value, image, (location * num_anchors + anchor) * num_classes + class_


def _find_above(rows: Tensor, limit: float, topk: int) -> tuple[Tensor, Tensor]:
    """Row and column of all values above ``limit``, or of fewer with the ``topk`` largest of a row.

    Everything is read once, for the maxima of blocks, and again only the blocks that matter: far
    cheaper than ``nonzero`` of everything.

    Args:
        rows: (N, S).
    """
    size = rows.shape[1] - rows.shape[1] % _BLOCK
    blocks, rest = rows[:, :size].unflatten(1, (-1, _BLOCK)), rows[:, size:]
    maxima = blocks.amax(dim=2)  # (N, number of blocks)
    # Not a number in Python: that would be rounded to the logits' precision, perhaps upwards.
    limits = torch.full((len(rows), 1), limit, device=rows.device)
    row, block = _not_below(maxima, limits)
    if len(row) > topk and maxima.shape[1] >= topk:
        # At least topk values of a row reach the topk-th of its maxima: only those can be wanted.
        ranked = maxima.float().nan_to_num(nan=-math.inf, neginf=-math.inf)
        kth = ranked.topk(topk, dim=1).values[:, -1:]
        limits = limits.maximum(kth - LOGIT_MARGIN - 1e-6 * kth.abs())
        row, block = _not_below(maxima, limits)
    inner_row, inner_column = (blocks[row, block] > limits[row]).nonzero(as_tuple=True)
    rest_row, rest_column = (rest > limits).nonzero(as_tuple=True)
    return (
        torch.cat([row[inner_row], rest_row]),
        torch.cat([block[inner_row] * _BLOCK + inner_column, rest_column + size]),
    )


def _not_below(maxima: Tensor, limits: Tensor) -> tuple[Tensor, Tensor]:
    """Row and column of maxima (N, B) above the limits (N, 1), or NaN, which hides the others."""
    row, column = (maxima <= limits).logical_not_().nonzero(as_tuple=True)
    return row, column


def divide(x: Tensor, divisor: int) -> tuple[Tensor, Tensor]:
    """Quotient and remainder of x >= 0."""
    quotient = torch.div(x, divisor, rounding_mode="floor")
    return quotient, x - quotient * divisor
