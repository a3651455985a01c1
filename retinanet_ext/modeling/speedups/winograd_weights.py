"""Weight gradients of large 3x3 convolutions with AVX-512, by half of Winograd's algorithm.

Winograd's minimal filtering F(6, 3) (Lavin & Gray, https://arxiv.org/abs/1509.09308) is used in the
vertical direction only. Each 6 rows of the gradient and the 8 rows of the input that they meet are
combined to 8 rows each; the weight gradients of 1x3 convolutions between those, by oneDNN, are
combined to that of the 3x3 one: 4/9 of the multiplications. The horizontal direction as well would
take fewer still, but more time: there are many short products then. Rounding is that of oneDNN or
less.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
from torch import Tensor

from ...cores import threads_side_by_side
from .pointwise import has_avx512

# Measured with 256 channels: 1.4 times as fast in 13,200 locations, 1.1 times in 3,300; with 128
# channels 1.05 times; 1.65 times with 256 inputs and 720 outputs.
MIN_CHANNELS = 192
MIN_LOCATIONS = 6000

# Numbers in the combined rows that are held at a time: 64 MiB.
MAX_NUMBERS = 2**24

# Each has sums of its own, which cost memory and have to be added.
MAX_LANES = 4

TILE = 6  # rows of the gradient
# What rows of the input, rows of the gradient, and the results are combined by.
_OF_INPUT = (
    (1.0, 0.0, -5.25, 0.0, 5.25, 0.0, -1.0, 0.0),
    (0.0, 1.0, 1.0, -4.25, -4.25, 1.0, 1.0, 0.0),
    (0.0, -1.0, 1.0, 4.25, -4.25, -1.0, 1.0, 0.0),
    (0.0, 0.5, 0.25, -2.5, -1.25, 2.0, 1.0, 0.0),
    (0.0, -0.5, 0.25, 2.5, -1.25, -2.0, 1.0, 0.0),
    (0.0, 2.0, 4.0, -2.5, -5.0, 0.5, 1.0, 0.0),
    (0.0, -2.0, 4.0, 2.5, -5.0, -0.5, 1.0, 0.0),
    (0.0, -1.0, 0.0, 5.25, 0.0, -5.25, 0.0, 1.0),
)
_POINTS = (0.0, 1.0, -1.0, 2.0, -2.0, 0.5, -0.5)
_OF_GRADIENT = (*(tuple(p**k for k in range(TILE)) for p in _POINTS), (0.0,) * 5 + (1.0,))
_SCALES = (1.0, -2 / 9, -2 / 9, 1 / 90, 1 / 90, 32 / 45, 32 / 45)
_OF_RESULT = (
    *(tuple(s * p**k for k in range(3)) for s, p in zip(_SCALES, _POINTS, strict=True)),
    (0.0, 0.0, 1.0),
)


def is_faster(x: Tensor, gradient: Tensor) -> bool:
    """Whether :func:`weight_gradient` pays off for a convolution that :mod:`.winograd` computes.

    Args:
        x: its input, (N, C, H, W).
        gradient: of its output, (N, D, H, W).
    """
    return (
        min(x.shape[1], gradient.shape[1]) >= MIN_CHANNELS
        and x.shape[-2] * x.shape[-1] >= MIN_LOCATIONS
        and not torch.is_grad_enabled()  # what is differentiated again goes by PyTorch's operators
        and has_avx512()
    )


@torch.library.custom_op(
    "retinanet_ext::winograd_weight_gradient",
    mutates_args=(),
    schema="(Tensor x, Tensor gradient) -> Tensor",
)
def weight_gradient(x: Tensor, gradient: Tensor) -> Tensor:
    """The gradient of the kernel of a 3x3 convolution of stride 1 and padding 1.

    Args:
        x: its input, (N, C, H, W) float32 on the CPU.
        gradient: of its output, (N, D, H, W).

    Returns:
        (D, C, 3, 3), contiguous.
    """
    (n, channels, height, width), outputs = x.shape, gradient.shape[1]
    if not n:
        return x.new_zeros(outputs, channels, 3, 3)
    threads = torch.get_num_threads()
    lanes = min(threads, MAX_LANES)
    rows = -(-height // TILE)
    fit = max(1, MAX_NUMBERS // (len(_OF_RESULT) * width * (channels + outputs)))
    steps = max(-(-rows // fit), -(-lanes // n))
    step = -(-rows // min(rows, steps))
    jobs = [(i, start, min(step, rows - start)) for i in range(n) for start in range(0, rows, step)]
    shares = [share for lane in range(lanes) if (share := jobs[lane::lanes])]
    if len(shares) == 1:
        total = _summed(x, gradient, shares[0])
    else:  # a lane for each core, since the single operations are short
        pool = threads_side_by_side(lanes, threads // lanes)
        total, *others = pool.map(functools.partial(_summed, x, gradient), shares)
        for other in others:
            total += other
    kernel = torch.mm(x.new_tensor(_OF_RESULT).t(), total.flatten(1))
    return kernel.view(3, outputs, channels, 3).permute(1, 2, 0, 3).contiguous()


@torch.no_grad()  # a thread of its own does not know whether the caller wants gradients
def _summed(x: Tensor, gradient: Tensor, jobs: Sequence[tuple[int, int, int]]) -> Tensor:
    """The gradients (8, D, C, 1, 3) of the 1x3 convolutions.

    Args:
        x, gradient: as of :func:`weight_gradient`.
        jobs: whose sum is wanted: image, first row of tiles, how many of them.
    """
    of_input, of_gradient = x.new_tensor(_OF_INPUT), x.new_tensor(_OF_GRADIENT)
    (_, channels, _, width), outputs = x.shape, gradient.shape[1]
    most = max(count for _, _, count in jobs)
    total = x.new_zeros(len(of_input), outputs, channels, 1, 3)
    inputs = x.new_empty(len(of_input), most, width * channels)
    gradients = x.new_empty(len(of_input), most, width * outputs)
    for image, start, count in jobs:
        _combine(of_input, x[image], start * TILE - 1, inputs[:, :count])
        _combine(of_gradient, gradient[image], start * TILE, gradients[:, :count])
        for part, upstream, sums in zip(inputs, gradients, total, strict=True):
            sums += _weight_gradient_1x3(
                _as_image(part[:count], width), _as_image(upstream[:count], width), sums
            )
    return total


@weight_gradient.register_fake
def _(x: Tensor, gradient: Tensor) -> Tensor:
    return x.new_empty((gradient.shape[1], x.shape[1], 3, 3))


def _combine(matrix: Tensor, image: Tensor, first: int, out: Tensor) -> None:
    """Combine rows of an image by a matrix (8, n); those outside of it are zero.

    Args:
        matrix: (8, n).
        image: (C, H, W).
        first: the row of the image that the first tile begins with; the next ones follow at
            distances of TILE.
        out: (8, tiles, W * C), which is overwritten.
    """
    height, size = image.shape[1], matrix.shape[1]
    base, end = max(first, 0), min(first + TILE * (out.shape[1] - 1) + size, height)
    lines = image[:, base:end].permute(1, 2, 0).reshape(end - base, -1)
    for tile in range(out.shape[1]):
        start = first + TILE * tile
        above, stop = max(0, -start), min(size, height - start)
        rows = lines[start + above - base : start + stop - base]
        torch.mm(matrix[:, above:stop], rows, out=out[:, tile])


def _as_image(rows: Tensor, width: int) -> Tensor:
    """(n, W * C) -> (1, C, n, W), channels_last."""
    return rows.view(1, len(rows), width, -1).permute(0, 3, 1, 2)


def _weight_gradient_1x3(x: Tensor, gradient: Tensor, weight: Tensor) -> Tensor:
    """Of a 1x3 convolution of stride 1 and padding 1; ``weight`` only has its shape."""
    plan = (None, [1, 1], [0, 1], [1, 1], False, [0, 0], 1, [False, True, False])
    return torch.ops.aten.convolution_backward(gradient, x, weight, *plan)[1]
