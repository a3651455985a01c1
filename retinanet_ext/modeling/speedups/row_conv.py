"""A 3x3 convolution at a few locations, as matrix products of gathered rows.

On a CPU of AMD, MKL computes a matrix product without AVX-512. There oneDNN takes it as a 1x1
convolution, in less than half of the time. Results differ by float rounding.

Letters: C channels, D output channels, m rows in, n rows out.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from .pointwise import MIN_IMAGES, onednn_is_faster

# Rows whose 3x3 neighbourhoods are gathered at a time: 9 MB of them for 256 channels.
CHUNK_ROWS = 1024

# Rows that make an image of a 1x1 convolution.
LINE = 16


def row_conv(
    x: Tensor, weight: Tensor, bias: Tensor | None, sources: Tensor, readers: Tensor
) -> Tensor:
    """The outputs (n, D) of a 3x3 convolution, with gradients.

    Args:
        x: (m, C).
        weight: (D, C, 3, 3).
        bias: (D,) or None.
        sources: (n, 9) int64, the rows of ``x`` that each output reads; m is a row of zeros.
        readers: (m, 9) int64, the outputs that read each row, in the order of the mirrored kernel;
            n is none.
    """
    return _RowConv.apply(x, weight, bias, sources, readers)


class _RowConv(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, sources: Tensor, readers: Tensor
    ) -> Tensor:
        ctx.save_for_backward(x, weight, sources, readers)
        return _outputs(x, sources, weight.permute(0, 2, 3, 1).flatten(1), bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, sources, readers = ctx.saved_tensors
        for_x, for_weight, for_bias = ctx.needs_input_grad[:3]
        x_gradient = weight_gradient = bias_gradient = None
        if for_x:
            x_gradient = _outputs(gradient, readers, weight.permute(1, 2, 3, 0).flatten(1), None)
        if for_weight:
            total = weight.new_zeros(len(weight), 9 * x.shape[1])
            for start, rows in _gathered(x, sources):
                _add_product(total, gradient[start : start + len(rows)], rows)
            weight_gradient = total.view(len(weight), 3, 3, -1).permute(0, 3, 1, 2).contiguous()
        if for_bias:
            bias_gradient = gradient.sum(0)
        return x_gradient, weight_gradient, bias_gradient, None, None


def _outputs(x: Tensor, table: Tensor, kernel: Tensor, bias: Tensor | None) -> Tensor:
    """Row i is ``kernel @ concatenated x[table[i]] + bias``; kernel (D, 9 * C)."""
    out = x.new_empty(len(table), len(kernel))
    for start, rows in _gathered(x, table):
        part, whole = out[start : start + len(rows)], _whole_lines(rows)
        if whole:
            maps = F.conv2d(_as_images(rows[:whole]), kernel[:, :, None, None], bias)
            part[:whole] = maps.permute(0, 2, 3, 1).reshape(whole, -1)
        if bias is None:
            torch.mm(rows[whole:], kernel.t(), out=part[whole:])
        else:
            torch.addmm(bias, rows[whole:], kernel.t(), out=part[whole:])
    return out


def _add_product(total: Tensor, gradient: Tensor, rows: Tensor) -> None:
    """``total += gradient.T @ rows``."""
    whole = _whole_lines(rows)
    if whole:
        plan = (None, [1, 1], [0, 0], [1, 1], False, [0, 0], 1, [False, True, False])
        of_kernel = torch.ops.aten.convolution_backward(
            _as_images(gradient[:whole]), _as_images(rows[:whole]), total[:, :, None, None], *plan
        )[1]
        total += of_kernel.flatten(1)
    total.addmm_(gradient[whole:].t(), rows[whole:])


def _gathered(x: Tensor, table: Tensor) -> Iterator[tuple[int, Tensor]]:
    """Where each chunk of ``table`` starts, and its rows (at most CHUNK_ROWS, 9 * C) of ``x``."""
    padded = F.pad(x, (0, 0, 0, 1))
    for start in range(0, len(table), CHUNK_ROWS):
        chunk = table[start : start + CHUNK_ROWS]
        yield start, padded.index_select(0, chunk.flatten()).view(len(chunk), -1)


def _whole_lines(rows: Tensor) -> int:
    """How many of the first rows oneDNN multiplies faster."""
    fast = len(rows) >= MIN_IMAGES * LINE and onednn_is_faster(rows)
    return len(rows) - len(rows) % LINE if fast else 0


def _as_images(rows: Tensor) -> Tensor:
    """(n, C) -> (n / LINE, C, 1, LINE), channels_last."""
    return rows.view(-1, 1, LINE, rows.shape[1]).permute(0, 3, 1, 2)
