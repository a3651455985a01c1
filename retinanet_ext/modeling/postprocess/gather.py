"""Out of maps of all levels, what the head says of some pairs of an image and an anchor.

Letters: N images, L levels, A anchors per location (levels may differ in it), K classes, R anchors
over all levels, Hi x Wi locations of level i, P pairs of an image and an anchor, B
numbers per box: 4 unless a box coder says otherwise.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ...losses.precision import at_least_float32
from .candidates import refuse_trace

SMALL = 2**20
"""Up to so many deltas of a batch are copied whole on a CPU: on one core 0.04 ms where one level
after the other took 0.2 ms (61,000 deltas), and half of the time at 490,000."""


def gather_deltas(
    deltas: list[Tensor],
    image_indices: Tensor,
    anchor_indices: Tensor,
    classes: Tensor | None = None,
    num_classes: int = 1,
    box_outputs: int = 4,
) -> Tensor:
    """Deltas (P, B), at least float32, of P pairs of an image and an anchor.

    Gradients flow to the deltas. Nothing is read back from the device.

    Args:
        deltas: L tensors (N, A*B, Hi, Wi) of any memory format; with ``classes``, L tensors
            (N, A*K*B, Hi, Wi), channels in the order (A, K, B).
        image_indices: (P,) int64 in [0, N).
        anchor_indices: (P,) int64 in [0, R); over the levels in order and, within a level, over
            (Hi, Wi, A) with A fastest. Values are undefined for indices beyond R.
        classes: (P,) int64 in [0, K), whose regressor is meant; None: there is one for all.
        num_classes: K; only read with ``classes``.
        box_outputs: B, how many numbers a box takes.
    """
    whole = torch.jit.is_tracing() or deltas[0].device.type != "cpu" or _copies_fast(deltas)
    if classes is None and whole:
        return gather_from_whole(deltas, image_indices, anchor_indices, box_outputs)
    if torch.jit.is_tracing():
        per_anchor = box_outputs * num_classes
        rows = gather_from_whole(deltas, image_indices, anchor_indices, per_anchor)
        return pick_class(rows, classes, num_classes, box_outputs)
    numbers = torch.arange(box_outputs, device=anchor_indices.device)
    if classes is None:
        return _gather(deltas, image_indices, anchor_indices, box_outputs, numbers)
    numbers = numbers + box_outputs * classes[:, None]
    return _gather(deltas, image_indices, anchor_indices, box_outputs * num_classes, numbers)


def _copies_fast(levels: list[Tensor]) -> bool:
    """Whether a copy of all levels costs less than to ask them one by one, on a CPU.

    A gradient would have to be copied back.
    """
    return sum(x.numel() for x in levels) <= SMALL and not any(x.requires_grad for x in levels)


def gather_quality(quality: list[Tensor], image_indices: Tensor, anchor_indices: Tensor) -> Tensor:
    """Quality logits (P,) from L tensors (N, A, Hi, Wi); else as :func:`gather_deltas`."""
    if torch.jit.is_tracing():
        return gather_from_whole(quality, image_indices, anchor_indices, 1).squeeze(1)
    channel = torch.zeros(1, dtype=torch.int64, device=anchor_indices.device)
    return _gather(quality, image_indices, anchor_indices, 1, channel).squeeze(1)


def _gather(
    levels: list[Tensor],
    image_indices: Tensor,
    anchor_indices: Tensor,
    per_anchor: int,
    wanted: Tensor,
) -> Tensor:
    """Of each pair's ``per_anchor`` channels the ``wanted`` ones, (D,) or (P, D): (P, D)."""
    by = gather_by_level if anchor_indices.device.type == "cpu" else gather_from_each
    return by(levels, image_indices, anchor_indices, per_anchor, wanted)


def gather_from_each(
    levels: list[Tensor],
    image_indices: Tensor,
    anchor_indices: Tensor,
    per_anchor: int,
    wanted: Tensor,
) -> Tensor:
    """Every level is asked for every pair: how many are its own is not known on the host."""
    images = image_indices[:, None]
    rows, start = None, 0
    for level in levels:
        num_anchors, width = level.shape[1] // per_anchor, level.shape[3]
        size = num_anchors * level.shape[2] * width
        index = (anchor_indices - start).clamp(0, size - 1)[:, None]
        location = index // num_anchors
        channels = index % num_anchors * per_anchor + wanted  # (P, D)
        picked = level[images, channels, location // width, location % width]
        rows = picked if rows is None else picked.where(anchor_indices[:, None] >= start, rows)
        start += size
    assert rows is not None, "a detector has at least one level"
    return at_least_float32(rows)


def gather_by_level(
    levels: list[Tensor],
    image_indices: Tensor,
    anchor_indices: Tensor,
    per_anchor: int,
    wanted: Tensor,
) -> Tensor:
    """The same where the host can say which pairs are of a level, so that each is read once.

    On a CPU twice as fast for one picture, and four to seven times for eight.
    """
    rows = levels[0].new_zeros(len(anchor_indices), wanted.shape[-1])
    start = 0
    for level in levels:
        channels, cells = level.shape[1], level.shape[2] * level.shape[3]
        num_anchors = channels // per_anchor
        size = num_anchors * cells
        mine = ((anchor_indices >= start) & (anchor_indices < start + size)).nonzero().flatten()
        index = anchor_indices[mine] - start
        location = torch.div(index, num_anchors, rounding_mode="floor")
        channel = (index - location * num_anchors) * per_anchor
        of_channel, of_location = cells, 1  # strides
        if not level.is_contiguous() and level.is_contiguous(memory_format=torch.channels_last):
            level = level.permute(0, 2, 3, 1)
            of_channel, of_location = 1, channels
        flat = level.flatten()  # a copy only of other layouts
        first = image_indices[mine] * (channels * cells)
        first += channel * of_channel + location * of_location
        numbers = wanted if wanted.ndim == 1 else wanted[mine]
        rows[mine] = flat.take(first[:, None] + numbers * of_channel)
        start += size
    return at_least_float32(rows)


def gather_from_whole(
    levels: list[Tensor], image_indices: Tensor, anchor_indices: Tensor, per_anchor: int
) -> Tensor:
    """All ``per_anchor`` channels of each pair, at least float32, (P, D), by few operations.

    One copy of all levels; where a kernel launch costs more than that, this is the faster way.

    Args:
        levels: L tensors (N, A*D, Hi, Wi).
        image_indices, anchor_indices: as for :func:`gather_deltas`.
        per_anchor: D.
    """
    if len({int(level.shape[1]) for level in levels}) > 1:  # levels differ in A
        refuse_trace("levels with different numbers of anchors")
        wanted = torch.arange(per_anchor, device=anchor_indices.device)
        return _gather(levels, image_indices, anchor_indices, per_anchor, wanted)
    whole = torch.cat([level.permute(0, 2, 3, 1).flatten(1, 2) for level in levels], dim=1)
    rows = whole.view(len(whole), -1, per_anchor)[image_indices, anchor_indices]
    return at_least_float32(rows)


def pick_class(
    rows: Tensor, classes: Tensor | None, num_classes: int, box_outputs: int = 4
) -> Tensor:
    """Deltas (P, B), at least float32, out of those of P anchors.

    Args:
        rows: (P, B), or with ``classes`` (P, K*B).
        classes: (P,) int64 in [0, K), whose regressor is meant; None: there is one for all.
        num_classes: K; only read with ``classes``.
        box_outputs: B, how many numbers a box takes.
    """
    if classes is not None:
        index = torch.arange(rows.shape[0], device=rows.device)
        rows = rows.view(-1, num_classes, box_outputs)[index, classes]
    return at_least_float32(rows)
