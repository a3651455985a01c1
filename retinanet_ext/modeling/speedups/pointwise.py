"""1x1 convolutions on one thread of the CPU, by oneDNN where PyTorch would not ask it.

With a single thread PyTorch takes small batches of 1x1 convolutions as matrix products of MKL.
Where channels lie innermost and the CPU has AVX-512, oneDNN needs half of that time. Lanes of
``predict`` have one thread each. Results differ by float rounding.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ...compat import onednn_convolution

# Smaller inputs are over before oneDNN has found its kernel; PyTorch's own limit for it.
MIN_NUMBERS = 20480


def has_avx512() -> bool:
    """Whether PyTorch computes with AVX-512 on this CPU."""
    ask: Any = getattr(torch.backends.cpu, "get_cpu_capability", str)
    return str(ask()).startswith("AVX512")


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
        and x.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and x.shape[1] == weight.shape[1]
        and x.numel() > MIN_NUMBERS
        # Otherwise oneDNN reorders the whole input, which can take longer than the product.
        and x.is_contiguous(memory_format=torch.channels_last)
        and torch.get_num_threads() == 1  # with more PyTorch asks oneDNN by itself
        and onednn_convolution is not None
        and torch.backends.mkldnn.is_available()
        and torch.backends.mkldnn.enabled
        and has_avx512()
        and not torch.is_autocast_enabled("cpu")
    )


def conv1x1(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """1x1 convolution of stride 1 without padding.

    Args:
        x: (N, C, H, W) float32 on the CPU.
        weight: (D, C, 1, 1).
        bias: (D,) or None.

    Returns:
        (N, D, H, W), in the memory format of ``x``.
    """
    return onednn_convolution(x, weight, bias, [0, 0], [1, 1], [1, 1], 1)
