"""Weights in a quarter of their size: int8 numbers with a scale for each output channel.

Only the file is small: reading one gives float32 tensors, and all that computes with them is as
ever. What is rounded are the kernels of convolutions, by at most half a step of 1/127 of the
largest number of their channel; norms and biases stay float32.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

__all__ = ["SCALES_KEY", "pack", "unpack"]

SCALES_KEY = "int8_scales"
"""Where a file holds the scales, float32 (C,), by the names of the tensors that they are for."""

LEVELS = 127
DEPTHWISE_INPUTS = 1  # of a kernel, whose few numbers gain nothing from fewer bits
HALF_LIMIT = 65504.0  # largest number of float16


def pack(weights: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """What a file of packed weights holds, but for the names of classes.

    Args:
        weights: float tensors by name, finite.

    Returns:
        ``"model"``: kernels (C, I, h, w) as int8, those of depthwise convolutions as float16, all
        else as it is; and :data:`SCALES_KEY`.
    """
    model: dict[str, Tensor] = {}
    scales: dict[str, Tensor] = {}
    for name, value in weights.items():
        value = value.detach().cpu()
        if value.ndim != 4 or not value.is_floating_point():
            model[name] = value.clone()
        elif value.shape[1] <= DEPTHWISE_INPUTS and value.abs().max() <= HALF_LIMIT:
            model[name] = value.half()
        else:
            scale = value.abs().amax(dim=(1, 2, 3)).float().clamp(min=1e-12) / LEVELS
            model[name] = (value / _as_column(scale)).round().to(torch.int8)
            scales[name] = scale
    return {"model": model, SCALES_KEY: scales}


def unpack(content: dict[str, Any]) -> dict[str, Any]:
    """The content of a file with its packed tensors in float32; any other content as it is.

    Raises:
        ValueError: a scale does not belong to a tensor.
    """
    scales = content.get(SCALES_KEY)
    if not isinstance(scales, Mapping):
        return content
    model = dict(content.get("model", {}))
    for name, scale in scales.items():
        value = model.get(name)
        if not isinstance(value, Tensor) or value.dtype != torch.int8 or not _fits(value, scale):
            raise ValueError(f"'{SCALES_KEY}' has '{name}', which is no tensor of int8 of its size")
        model[name] = value.float() * _as_column(scale)
    model = {k: v.float() if _is_half(v) else v for k, v in model.items()}
    return {**{k: v for k, v in content.items() if k != SCALES_KEY}, "model": model}


def _fits(value: Tensor, scale: Any) -> bool:
    return isinstance(scale, Tensor) and value.ndim == 4 and scale.shape == value.shape[:1]


def _is_half(value: Any) -> bool:
    return isinstance(value, Tensor) and value.dtype == torch.float16


def _as_column(scale: Tensor) -> Tensor:
    return scale[:, None, None, None]
