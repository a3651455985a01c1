"""Convolutions at a few locations of a feature pyramid: the box subnet in training.

The box loss looks only at positive anchors, a small part of the pyramid. A 3x3 convolution's
output there needs its input one location further around, so a tower of them can be followed back
from the positives to the features: each layer is computed at the locations that a later one reads,
as a matrix product of gathered rows. Outputs and gradients are those of the whole convolutions,
within float rounding.

Letters: N images, L levels, C channels, D output channels, Ai anchors per location and Hi x Wi
locations of level i, P pairs of an image and an anchor, n and m rows of cells, a cell being a
location of an image.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ...structures import DenseTargets
from .hooked import is_hooked
from .plain_conv import is_plain_conv3x3

# Beyond this fraction of all locations, averaged over the layers, whole convolutions are faster: a
# row took 66 us of CPU time, forward and backward, and a location of a Winograd convolution 38 us.
MAX_SHARE = 0.5

# Rows whose 3x3 neighbourhoods are gathered at a time: 9 MB of them for 256 channels.
CHUNK_ROWS = 1024


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
        x = _RowConv.apply(x, conv.weight, conv.bias, sources, readers)
    rows = canvas.rows(cells[0], pairs)
    return x.unflatten(1, (max(num_anchors), -1))[rows, slots]


class Canvas:
    """Cells of all images and levels in one row, each map with a border one cell wide.

    Borders make the neighbours of a cell lie at fixed distances, and stand for zero padding.
    """

    def __init__(self, num_images: int, sizes: Sequence[tuple[int, int]], device: torch.device):
        """
        Args:
            num_images: N.
            sizes: (Hi, Wi) of L levels.
        """
        self.num_images = num_images
        self.sizes = list(sizes)
        self.num_locations = num_images * sum(height * width for height, width in self.sizes)
        interiors, pitches = [], []
        for height, width in self.sizes:
            interior = torch.ones(num_images, height, width, dtype=torch.bool, device=device)
            interior = F.pad(interior, (1, 1, 1, 1))
            interiors.append(interior.flatten())
            pitches.append(torch.full_like(interiors[-1], width + 2, dtype=torch.int64))
        self.interior = torch.cat(interiors)
        self.pitch = torch.cat(pitches)

    def cells(
        self, images: Tensor, anchors: Tensor, num_anchors: Sequence[int]
    ) -> tuple[Tensor, Tensor]:
        """Cells (P,) of P images and anchors, and which anchor of its cell each is.

        Args:
            images, anchors, num_anchors: see :func:`outputs_at`.
        """
        cells, slots = torch.zeros_like(anchors), torch.zeros_like(anchors)
        first_anchor = first_cell = 0
        for count, (height, width) in zip(num_anchors, self.sizes, strict=True):
            index = anchors - first_anchor
            location = index // count
            line = images * (height + 2) + location // width + 1
            cell = first_cell + line * (width + 2) + location % width + 1
            here = index >= 0  # of this level or, set right by the next ones, a later one
            cells = torch.where(here, cell, cells)
            slots = torch.where(here, index % count, slots)
            first_anchor += height * width * count
            first_cell += self.num_images * (height + 2) * (width + 2)
        return cells, slots

    def neighbours(self, cells: Tensor) -> Tensor:
        """The 3x3 cells (n, 9) around n cells, in the order of a kernel's entries."""
        step = torch.arange(-1, 2, device=cells.device)
        rows = step[:, None] * self.pitch[cells, None, None]
        return (cells[:, None, None] + rows + step).flatten(1)

    def inside(self, cells: Tensor) -> Tensor:
        """The different ones among ``cells`` that are no border, sorted."""
        wanted = torch.zeros_like(self.interior)
        wanted[cells.flatten()] = True
        return (wanted & self.interior).nonzero().flatten()

    def rows(self, listed: Tensor, cells: Tensor) -> Tensor:
        """Where each of ``cells`` stands in ``listed``, of length n; n if it does not."""
        position = listed.new_full(self.interior.shape, len(listed))
        position[listed] = torch.arange(len(listed), device=listed.device)
        return position[cells]

    def gather(self, features: Sequence[Tensor], cells: Tensor) -> Tensor:
        """What L maps (N, C, Hi, Wi) hold at n sorted cells that are no border: (n, C)."""
        rows, first_cell = [], 0
        for x, (height, width) in zip(features, self.sizes, strict=True):
            last_cell = first_cell + self.num_images * (height + 2) * (width + 2)
            start, stop = torch.searchsorted(
                cells, torch.tensor([first_cell, last_cell], device=cells.device)
            ).tolist()
            own = cells[start:stop] - first_cell
            line, column = own // (width + 2), own % (width + 2) - 1
            image, row = line // (height + 2), line % (height + 2) - 1
            table = x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])
            rows.append(table.index_select(0, (image * height + row) * width + column))
            first_cell = last_cell
        return torch.cat(rows)


class _RowConv(torch.autograd.Function):
    """A 3x3 convolution from rows (m, C) to rows (n, D)."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, sources: Tensor, readers: Tensor
    ) -> Tensor:
        """``sources`` (n, 9) and ``readers`` (m, 9) are rows; one past the end is zero."""
        ctx.save_for_backward(x, weight, sources, readers)
        matrix = weight.permute(2, 3, 1, 0).reshape(-1, len(weight))
        return _gathered_product(x, sources, matrix, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, sources, readers = ctx.saved_tensors
        for_x, for_weight, for_bias = ctx.needs_input_grad[:3]
        x_gradient = weight_gradient = bias_gradient = None
        if for_x:
            matrix = weight.permute(2, 3, 0, 1).reshape(-1, weight.shape[1])
            x_gradient = _gathered_product(gradient, readers, matrix, None)
        if for_weight:
            padded = _with_zero_row(x)
            total = weight.new_zeros(len(weight), 9 * x.shape[1])
            for part, rows in zip(
                gradient.split(CHUNK_ROWS), sources.split(CHUNK_ROWS), strict=True
            ):
                total.addmm_(part.t(), _gather(padded, rows))
            weight_gradient = total.view(len(weight), 3, 3, -1).permute(0, 3, 1, 2).contiguous()
        if for_bias:
            bias_gradient = gradient.sum(0)
        return x_gradient, weight_gradient, bias_gradient, None, None


def _gathered_product(x: Tensor, table: Tensor, matrix: Tensor, bias: Tensor | None) -> Tensor:
    """Row i is ``concatenated x[table[i]] @ matrix + bias``."""
    padded = _with_zero_row(x)
    out = x.new_empty(len(table), matrix.shape[1])
    for part, rows in zip(out.split(CHUNK_ROWS), table.split(CHUNK_ROWS), strict=True):
        gathered = _gather(padded, rows)
        if bias is None:
            torch.mm(gathered, matrix, out=part)
        else:
            torch.addmm(bias, gathered, matrix, out=part)
    return out


def _gather(padded: Tensor, table: Tensor) -> Tensor:
    return padded.index_select(0, table.flatten()).view(len(table), 9 * padded.shape[1])


def _with_zero_row(x: Tensor) -> Tensor:
    return F.pad(x, (0, 0, 0, 1))
