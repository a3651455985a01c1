"""3x3 convolutions on the CPU by Winograd's algorithm, forward and backward.

A direct 3x3 convolution takes 9 multiplications per output; Winograd's minimal filtering (Lavin &
Gray, https://arxiv.org/abs/1509.09308) on 8x8 tiles takes 64/36. cuDNN does so on GPUs; on CPUs
PyTorch's default (oneDNN) computes directly. NNPACK, which PyTorch's CPU builds carry, has the
algorithm, fast for one image at a time; here it also serves the gradient with respect to the input,
which is a 3x3 convolution itself. Results differ from the direct ones by float rounding.

NNPACK has one pool of threads, for which callers wait in turn. It is started with a single thread
here, so that each of PyTorch's threads computes an image, or a piece of one, by itself.
"""

from __future__ import annotations

import functools
import itertools
from typing import Any

import torch
from torch import Tensor

from ...compat import nnpack_convolution
from ...cores import let_openmp_wait_briefly, on_one_thread, parallel_map
from . import winograd_weights
from .pointwise import has_avx512

# Transforming the kernel is spread over many locations, transforming a location over many channels.
# With AVX2, NNPACK was 1.6 to 2.9 times faster than oneDNN for 128 and more channels in 3,300 and
# more locations, 1.2 times for 64 channels, and no faster in 825 locations.
MIN_CHANNELS = 96
MIN_LOCATIONS = 2000

# Channels in and out times locations. Less is for oneDNN where it has AVX-512 and several threads,
# and more makes PyTorch's other threads stop waiting actively, for the ones that compute here.
# R50 at 480 x 640 (3e8) took 0.81 of the time so; ResNet-18 of width 96 (4e7) would take 1.1 times.
MUCH_WORK = 2**27

TILE = 6  # rows of the output that NNPACK computes at once
# Pieces of an image by channels transform the whole input each, those by rows the whole kernel.
MAX_CHANNEL_PIECES = 4
MIN_CHANNELS_OF_PIECE = 32


@functools.cache
def is_available() -> bool:
    """Whether this PyTorch has NNPACK and this machine can run it."""
    backend = getattr(torch.backends, "nnpack", None)
    # Asking also starts NNPACK; without that its convolution fails.
    if nnpack_convolution is None or backend is None or not backend.is_available():
        return False
    # NNPACK keeps as many threads as its first caller has.
    plain: Any = {"dtype": torch.float32, "device": "cpu"}
    image, weight = torch.zeros(1, 16, 8, 8, **plain), torch.zeros(16, 16, 3, 3, **plain)
    on_one_thread(lambda: nnpack_convolution(image, weight, None, padding=1))
    return True


def is_faster(x: Tensor, weight: Tensor) -> bool:
    """Whether :func:`conv3x3` takes a convolution of stride 1 and padding 1, and pays off.

    It has to be available besides.

    Args:
        x: (N, C, H, W).
        weight: (D, C, h, w).
    """
    return (
        weight.shape[-2:] == (3, 3)
        and weight.shape[1] == x.shape[1] >= MIN_CHANNELS
        and x.shape[-2] * x.shape[-1] >= MIN_LOCATIONS
        and x.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and not torch.is_autocast_enabled("cpu")
        and (_is_much_work(x, weight) or torch.get_num_threads() == 1 or not has_avx512())
        and not torch.jit.is_tracing()  # an exported graph must run where this package is absent
    )


def _is_much_work(x: Tensor, weight: Tensor) -> bool:
    return weight.shape[0] * x.shape[1] * x.shape[2] * x.shape[3] >= MUCH_WORK


@torch.library.custom_op(
    "retinanet_ext::winograd_conv3x3",
    mutates_args=(),
    schema="(Tensor x, Tensor weight, Tensor? bias) -> Tensor",
)
def conv3x3(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """3x3 convolution of stride 1 and padding 1.

    Args:
        x: (N, C, H, W) float32 on the CPU.
        weight: (D, C, 3, 3).
        bias: (D,) or None.

    Returns:
        (N, D, H, W), contiguous.
    """
    if not is_available():
        raise RuntimeError("this PyTorch has no NNPACK, or it does not run on this machine")
    if x.shape[0] == 0:
        return x.new_empty((0, weight.shape[0], *x.shape[2:]))
    weight = weight.contiguous()
    jobs = _pieces(x, len(weight), torch.get_num_threads())
    # NNPACK has a path of its own for one image; with several it is slower than oneDNN.
    if len(jobs) == 1:
        return nnpack_convolution(x, weight, bias, padding=1)
    if _is_much_work(x, weight):
        let_openmp_wait_briefly()
    if len(jobs) > len(x):
        x = x.contiguous()  # once, not in each piece
    out = torch.empty((len(x), len(weight), *x.shape[2:]), dtype=x.dtype)
    compute = functools.partial(_convolve_piece, x, weight, bias, out)
    parallel_map(jobs, lambda: compute, with_caller=True)
    return out


def _pieces(x: Tensor, outputs: int, threads: int) -> list[tuple[int, slice, slice]]:
    """What threads compute side by side: image, output channels, rows.

    Args:
        x: (N, C, H, W).
        outputs: D, channels of the output.
        threads: that compute.
    """
    n, height = len(x), x.shape[2]
    wanted = 1 if n >= threads else -(-threads // n)
    by_channels = max(1, min(wanted, MAX_CHANNEL_PIECES, outputs // MIN_CHANNELS_OF_PIECE))
    # Beyond the piece, a tile's rows above it are computed, too.
    by_rows = max(1, min(-(-wanted // by_channels), height // (4 * TILE)))
    channels = _split(outputs, by_channels, multiple=8)
    rows = _split(height, by_rows, multiple=TILE)
    return [(i, c, r) for i in range(n) for c in channels for r in rows]


def _split(length: int, count: int, multiple: int) -> list[slice]:
    """``count`` slices of about one length, which begin at multiples of a number."""
    edges = [length * i // count // multiple * multiple for i in range(count)]
    return [slice(a, b) for a, b in itertools.pairwise([*edges, length])]


def _convolve_piece(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    out: Tensor,
    piece: tuple[int, slice, slice],
) -> None:
    """Write a piece of ``out``, the same numbers as the whole has there."""
    i, channels, rows = piece
    # Tiles lie as in the whole; what zeros are padded to inside of the image is not kept.
    first = max(0, rows.start - TILE)
    image = x[i : i + 1, :, first : rows.stop + 1]
    bias = None if bias is None else bias[channels]
    found = nnpack_convolution(image, weight[channels], bias, padding=1)
    out[i, channels, rows] = found[0, :, rows.start - first : rows.stop - first]


@conv3x3.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return x.new_empty((x.shape[0], weight.shape[0], *x.shape[2:]))


def _save(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    x, weight, _ = inputs
    ctx.save_for_backward(x, weight)


def _gradients(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[no-untyped-def]
    x, weight = ctx.saved_tensors
    for_x, for_weight, for_bias = ctx.needs_input_grad
    grad_x = grad_weight = grad_bias = None
    if for_x:
        grad_x = conv3x3(grad, weight.flip(2, 3).transpose(0, 1), None)
    if for_weight and winograd_weights.is_faster(x, grad):
        grad_weight = winograd_weights.weight_gradient(x, grad)
    elif for_weight:
        # oneDNN's weight gradient is several times slower where channels lie innermost.
        _, grad_weight, _ = torch.ops.aten.convolution_backward(
            grad.contiguous(),
            x.contiguous(),
            weight.contiguous(),
            None,
            [1, 1],
            [1, 1],
            [1, 1],
            False,
            [0, 0],
            1,
            [False, True, False],
        )
    if for_bias:
        grad_bias = grad.sum(dim=(0, 2, 3))
    return grad_x, grad_weight, grad_bias


conv3x3.register_autograd(_gradients, setup_context=_save)
