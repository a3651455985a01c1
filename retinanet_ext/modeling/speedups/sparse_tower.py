"""Convolutions at a few locations of a feature pyramid: the box subnet in training.

The box loss looks only at positive anchors, a small part of the pyramid. A 3x3 convolution's
output there needs its input one location further around, so a tower of them can be followed back
from the positives to the features: each layer is computed at the locations that a later one reads,
as a matrix product of gathered rows. Outputs and gradients are those of the whole convolutions,
within float rounding.

Letters: N images, L levels, C channels, D output channels, Ai anchors per location and Hi x Wi
locations of level i, P pairs of an image and an anchor.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from ...structures import DenseTargets
from .canvas import Canvas
from .hooked import is_hooked
from .plain_conv import is_plain_conv3x3
from .row_conv import row_conv

# Beyond this fraction of all locations, averaged over the layers, whole convolutions are faster: a
# row took 66 us of CPU time, forward and backward, and a location of a Winograd convolution 38 us.
MAX_SHARE = 0.5


def positive_outputs(
    tower: nn.Module,
    predictor: nn.Module,
    features: Sequence[Tensor],
    targets: DenseTargets,
    num_anchors: Sequence[int],
) -> Tensor | None:
    """What a tower and its predictor put out for the P positives: (P, D / max(Ai)).

    Args:
        tower, predictor: of D output channels.
        features: L tensors (N, C, Hi, Wi).
        targets: of the N images; the rows are in the order of their ``pos_mask``.
        num_anchors: Ai of each level.

    Returns:
        None where :func:`plain_convs` does not know the tower, or whole convolutions are faster.
    """
    convs = plain_convs(tower, predictor)
    if convs is None:
        return None
    images, positives = targets.pos_mask.nonzero(as_tuple=True)
    return outputs_at(convs, features, images, positives, num_anchors)


def plain_convs(tower: nn.Module, predictor: nn.Module) -> list[nn.Conv2d] | None:
    """The convolutions of a tower and its predictor, or None if they are something else.

    They have to be 3x3 of stride and zero padding 1, those of the tower each followed by a ReLU,
    and nobody may listen to their outputs by hooks.
    """
    if not isinstance(tower, nn.Sequential) or len(tower) % 2:
        return None
    convs = [*tower[::2], predictor]
    plain = all(isinstance(relu, nn.ReLU) for relu in tower[1::2])
    plain = plain and all(map(is_plain_conv3x3, convs))
    return convs if plain and not is_hooked(tower, *tower, predictor) else None


def outputs_at(
    convs: Sequence[nn.Conv2d],
    features: Sequence[Tensor],
    image_indices: Tensor,
    anchor_indices: Tensor,
    num_anchors: Sequence[int],
    max_share: float | None = None,
) -> Tensor | None:
    """What a tower puts out for P pairs of an image and an anchor: (P, D / max(Ai)).

    Args:
        convs: as :func:`plain_convs` gives them, from the features to D outputs; those of anchor a
            are the a-th of max(Ai) equal parts.
        features: L tensors (N, C, Hi, Wi).
        image_indices: (P,) int64 in [0, N).
        anchor_indices: (P,) int64; over the levels in order and, within a level, over (Hi, Wi, Ai)
            with Ai fastest.
        num_anchors: Ai of each level.
        max_share: default: MAX_SHARE.

    Returns:
        None if so much of the pyramid is needed that whole convolutions are faster.
    """
    sizes = [(x.shape[2], x.shape[3]) for x in features]
    canvas = Canvas(len(features[0]), sizes, anchor_indices.device)
    pairs, slots = canvas.cells(image_indices, anchor_indices, num_anchors)
    cells = [canvas.inside(pairs)]
    for _ in convs:
        cells.append(canvas.inside(canvas.neighbours(cells[-1])))
    # The last entry is only read.
    share = sum(map(len, cells[:-1])) / max(1, len(convs) * canvas.num_locations)
    if share > (MAX_SHARE if max_share is None else max_share):
        return None
    x = canvas.gather(features, cells[-1])
    for conv, (inputs, outputs) in zip(convs, pairwise(reversed(cells)), strict=True):
        sources = canvas.rows(inputs, canvas.neighbours(outputs))
        # An output reads its neighbours, so an input is read by its own, mirrored.
        readers = canvas.rows(outputs, canvas.neighbours(inputs).flip(1))
        if conv is not convs[0]:
            x = F.relu(x)
        x = row_conv(x, conv.weight, conv.bias, sources, readers)
    rows = canvas.rows(cells[0], pairs)
    return x.unflatten(1, (max(num_anchors), -1))[rows, slots]
