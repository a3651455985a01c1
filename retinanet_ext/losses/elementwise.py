"""Single entries of a dense head's logits, picked by image, anchor and class.

Letters: N images, L levels, A anchors per location, K classes, Hi x Wi locations of level i,
R = sum of Hi * Wi * A over the levels, E entries.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from .precision import at_least_float32


def element_logits(logits: Sequence[Tensor], rows: Tensor, num_classes: int) -> Tensor:
    """The logits (E,) of E entries, at least float32; gradients flow to ``logits``.

    Args:
        logits: a head's L outputs (N, A*K, Hi, Wi).
        rows: (E, 3) int64 of image, anchor in [0, R) and class; R in the order (level, Hi, Wi, A).
        num_classes: K.
    """
    sizes = [level[0].numel() // num_classes for level in logits]
    width_and_anchors = [(level.shape[3], level.shape[1] // num_classes) for level in logits]

    def pick(i: int, image: Tensor, y: Tensor, x: Tensor, channel: Tensor) -> Tensor:
        return at_least_float32(logits[i][image, channel, y, x])

    return _over_levels(rows, num_classes, sizes, width_and_anchors, pick)


def conv_entry_logits(
    features: Sequence[Tensor],
    weight: Tensor,
    bias: Tensor | None,
    rows: Tensor,
    num_classes: int,
) -> Tensor:
    """:func:`element_logits` of ``conv2d(features, weight, bias)`` without making the other logits.

    Each entry is the product of one patch of the features and one filter, (C, kh, kw) numbers of
    each in memory, so E should be small. Gradients flow to features, weight and bias.

    Args:
        features: L tensors (N, C, Hi, Wi).
        weight: (A*K, C, kh, kw) with odd kh and kw; stride 1, zero padding to the same size.
        bias: (A*K,) or None.
        rows, num_classes: see :func:`element_logits`.
    """
    num_anchors = len(weight) // num_classes
    sizes = [x.shape[2] * x.shape[3] * num_anchors for x in features]
    width_and_anchors = [(x.shape[3], num_anchors) for x in features]
    kernel_height, kernel_width = weight.shape[2:]
    down = torch.arange(kernel_height, device=rows.device)[:, None]  # (kh, 1)
    right = torch.arange(kernel_width, device=rows.device)  # (kw,)

    def pick(i: int, image: Tensor, y: Tensor, x: Tensor, channel: Tensor) -> Tensor:
        margins = (kernel_width // 2, kernel_width // 2, kernel_height // 2, kernel_height // 2)
        padded = F.pad(features[i], margins).permute(0, 2, 3, 1)
        image, y, x = (index[:, None, None] for index in (image, y, x))
        patches = at_least_float32(padded[image, y + down, x + right])  # (E, kh, kw, C)
        filters = at_least_float32(weight[channel]).permute(0, 2, 3, 1)
        products = (patches * filters).sum((1, 2, 3))
        return products if bias is None else products + bias[channel]

    return _over_levels(rows, num_classes, sizes, width_and_anchors, pick)


def _over_levels(
    rows: Tensor,
    num_classes: int,
    sizes: Sequence[int],
    width_and_anchors: Sequence[tuple[int, int]],
    pick: Callable[[int, Tensor, Tensor, Tensor, Tensor], Tensor],
) -> Tensor:
    """``pick(level, image, y, x, channel)`` of each row's own level.

    Every level is asked for every row, since how many are its own is not known on the host: nothing
    is read back from the device.
    """
    image, anchor, k = rows.unbind(dim=1)
    picked, start = None, 0
    for i, (size, (width, num_anchors)) in enumerate(zip(sizes, width_and_anchors, strict=True)):
        if size == 0:
            continue
        index = (anchor - start).clamp(0, size - 1)
        location = index // num_anchors
        channel = index % num_anchors * num_classes + k
        found = pick(i, image, location // width, location % width, channel)
        picked = found if picked is None else found.where(anchor >= start, picked)
        start += size
    if picked is None:
        raise ValueError("logits or features must hold at least one location, got none")
    return picked
