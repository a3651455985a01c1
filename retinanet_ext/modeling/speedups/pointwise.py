"""1x1 convolutions on one thread of the CPU, by oneDNN where PyTorch would not ask it.

On a single thread PyTorch takes 1x1 convolutions of up to 15 images as matrix products by MKL. With
AVX-512, oneDNN needs half of that time, forward and backward, where channels lie innermost. There
each line of locations is as good as an image, which makes enough images for PyTorch to ask oneDNN.
Lanes of ``predict`` have one thread each. Results differ by float rounding.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

# PyTorch's own limits, from which on it asks oneDNN.
MIN_IMAGES = 16
MIN_NUMBERS = 20480


def has_avx512() -> bool:
    """Whether PyTorch computes with AVX-512 on this CPU."""
    ask: Any = getattr(torch.backends.cpu, "get_cpu_capability", str)
    return str(ask()).startswith("AVX512")


def onednn_is_faster(x: Tensor) -> bool:
    """Whether oneDNN multiplies by ``x`` with AVX-512, and MKL perhaps does not."""
    return (
        x.device.type == "cpu"
        and x.dtype == torch.float32
        and torch.backends.mkldnn.is_available()
        and has_avx512()
        and not torch.is_autocast_enabled("cpu")
    )


def is_faster(x: Tensor, weight: Tensor) -> bool:
    """Whether :func:`conv1x1` takes a convolution of stride 1 without padding, and pays off.

    Args:
        x: (N, C, H, W).
        weight: (D, C, h, w).
    """
    # An exported graph must run on other machines; a compiler chooses by itself.
    if torch.jit.is_tracing() or torch.compiler.is_compiling():
        return False
    return (
        weight.shape[-2:] == (1, 1)
        and x.dtype == weight.dtype
        and x.shape[1] == weight.shape[1]
        and x.shape[0] < MIN_IMAGES <= x.shape[0] * x.shape[2]
        and x.numel() > MIN_NUMBERS
        and torch.get_num_threads() == 1  # with more PyTorch asks oneDNN by itself
        and onednn_is_faster(x)
    )


def conv1x1(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """1x1 convolution of stride 1 without padding.

    Args:
        x: (N, C, H, W).
        weight: (D, C, 1, 1).
        bias: (D,) or None.

    Returns:
        (N, D, H, W), channels_last.
    """
    return _ByLines.apply(x, weight, bias)


class _ByLines(torch.autograd.Function):
    """Written out, since views changed in place, as by ReLU, take long to differentiate."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _maps(F.conv2d(_lines(x), weight, bias), len(x)).data  # no view any more

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        plan = ([len(weight)], [1, 1], [0, 0], [1, 1], False, [0, 0], 1, list(ctx.needs_input_grad))
        for_x, *others = torch.ops.aten.convolution_backward(
            _lines(gradient), _lines(x), weight, *plan
        )
        return None if for_x is None else _maps(for_x, len(x)), *others


def _lines(x: Tensor) -> Tensor:
    """(N, C, H, W) -> (N * H, C, 1, W), channels_last."""
    x = x.contiguous(memory_format=torch.channels_last).permute(0, 2, 3, 1)
    return x.reshape(-1, 1, *x.shape[2:]).permute(0, 3, 1, 2)


def _maps(lines: Tensor, n: int) -> Tensor:
    """(N * H, D, 1, W) -> (N, D, H, W), channels_last."""
    lines = lines.permute(0, 2, 3, 1)
    return lines.reshape(n, -1, *lines.shape[2:]).permute(0, 3, 1, 2)
