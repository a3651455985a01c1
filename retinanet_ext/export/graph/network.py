"""The network of a detector, written in plain layers: what runs the file may know nothing else."""

from __future__ import annotations

import copy
from typing import Any

import torch
from detectron2.layers import Conv2d as NormConv2d
from detectron2.layers import FrozenBatchNorm2d
from torch import Tensor, nn

from ...modeling.speedups.settings import FastConv2d, FastNormConv2d

__all__ = ["plain_copy"]


def plain_copy(module: nn.Module) -> Any:
    """A copy in evaluation mode, without the speedups, and with its batch norms in the kernels.

    Convolutions that somebody's subclass changes stay as they are.

    Args:
        module: a backbone or a head; left as it is.
    """
    copied = copy.deepcopy(module).eval()
    for module in copied.modules():
        part: Any = module
        if type(part) is FastConv2d:
            part.__class__ = nn.Conv2d  # type: ignore[assignment]
        elif type(part) is FastNormConv2d:
            part.__class__ = NormConv2d
        if type(part) is NormConv2d:
            _fold(part)
    return copied.requires_grad_(False)


def _fold(conv: Any) -> None:
    """Put a batch norm of fixed statistics into kernel and bias of the convolution before it."""
    norm = conv.norm
    if isinstance(norm, FrozenBatchNorm2d) or (
        isinstance(norm, nn.BatchNorm2d) and norm.running_var is not None
    ):
        scale, shift = _scale_and_shift(norm)
        bias = torch.zeros_like(scale) if conv.bias is None else conv.bias.double()
        weight = conv.weight.double() * scale.view(-1, 1, 1, 1)
        conv.weight = nn.Parameter(weight.to(conv.weight.dtype))
        conv.bias = nn.Parameter((bias * scale + shift).to(conv.weight.dtype))
        conv.norm = None


def _scale_and_shift(norm: Any) -> tuple[Tensor, Tensor]:
    """What the norm multiplies channels by and adds to them, (C,) each, float64."""
    scale = (norm.running_var.double() + norm.eps).rsqrt()
    shift = -norm.running_mean.double() * scale
    if norm.weight is not None:
        scale, shift = scale * norm.weight.double(), shift * norm.weight.double()
    if norm.bias is not None:
        shift = shift + norm.bias.double()
    return scale, shift
