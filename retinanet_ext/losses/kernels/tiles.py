"""How the output channels of a classification convolution are split into tiles.

Letters: N images, C channels, A anchors per location, K classes, Hi x Wi locations of level i.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

MIN_CHANNELS = 64  # below, matrix products are slow: rather fewer images at a time
CHANNEL_STEP = 16  # vector registers and tensor cores want multiples


class Tile(NamedTuple):
    """Anchors and classes of a tile: all classes of some anchors, or some classes of one."""

    first_anchor: int
    last_anchor: int
    first_class: int
    last_class: int

    def channels(self, num_classes: int) -> slice:
        """Output channels of the convolution, which are in the order (A, K)."""
        last = (self.last_anchor - 1) * num_classes + self.last_class
        return slice(self.first_anchor * num_classes + self.first_class, last)

    def labels(self, labels: Tensor, num_classes: int) -> Tensor:
        """Labels (N, Hi*Wi, A) as this tile sees them, (N, Hi*Wi * its anchors).

        Its classes count from 0; any other class is background.
        """
        own = labels[:, :, self.first_anchor : self.last_anchor].flatten(1)
        classes = self.last_class - self.first_class
        if classes == num_classes:
            return own
        shifted = own - self.first_class
        elsewhere = torch.where(own < 0, -1, classes)
        return torch.where((shifted >= 0) & (shifted < classes), shifted, elsewhere)


def plan_tiles(
    x: Tensor, weight: Tensor, num_classes: int, max_bytes: int
) -> Iterator[tuple[slice, list[Tile]]]:
    """Cut a level into tiles whose logits and whose part of the weight keep to ``max_bytes``.

    One channel of one image is the least. On small levels the weight is larger than the logits.

    Args:
        x: (N, C, Hi, Wi).
        weight: (A*K, C, kh, kw).

    Yields:
        Images of ``x``, and the tiles that are to be made of them.
    """
    logit_bytes = x.shape[2] * x.shape[3] * x.element_size()  # of a channel and image
    if len(x) * logit_bytes == 0:
        return
    images = min(len(x), max(1, max_bytes // (min(MIN_CHANNELS, len(weight)) * logit_bytes)))
    channel_bytes = max(images * logit_bytes, weight[0].numel() * x.element_size())
    tiles = split(len(weight) // num_classes, num_classes, max(1, max_bytes // channel_bytes))
    for i in range(0, len(x), images):
        yield slice(i, i + images), tiles


def split(num_anchors: int, num_classes: int, max_channels: int) -> list[Tile]:
    """Cut channels (A, K) into tiles of about equal size, at most ``max_channels`` each."""
    if max_channels >= num_classes:
        anchors = _even(num_anchors, max_channels // num_classes, 1)
        return [
            Tile(a, min(a + anchors, num_anchors), 0, num_classes)
            for a in range(0, num_anchors, anchors)
        ]
    classes = _even(num_classes, max_channels, CHANNEL_STEP)
    return [
        Tile(a, a + 1, k, min(k + classes, num_classes))
        for a in range(num_anchors)
        for k in range(0, num_classes, classes)
    ]


def _even(total: int, most: int, step: int) -> int:
    """Size of the equal parts of ``total``, at most ``most``, a multiple of ``step`` if it can."""
    size = math.ceil(total / math.ceil(total / most))
    rounded = math.ceil(size / step) * step
    return rounded if rounded <= most else size
