"""Convolutions that are known to compute what their weights say, and no more."""

from __future__ import annotations

from detectron2.layers import Conv2d as NormConv2d
from torch import nn

from .settings import FastConv2d, FastNormConv2d

_PLAIN_CLASSES = (nn.Conv2d, FastConv2d, NormConv2d, FastNormConv2d)


def is_plain_conv3x3(conv: nn.Module) -> bool:
    """Whether it is a 3x3 convolution of stride and zero padding 1."""
    return makes_same_maps(conv) and conv.kernel_size == (3, 3)


def makes_same_maps(conv: nn.Module | None) -> bool:
    """Whether it is a convolution of stride 1 and zero padding to the same size, nothing else."""
    return (
        isinstance(conv, nn.Conv2d)
        # Other subclasses may compute something else; parametrized ones have their own class, too.
        and type(conv) in _PLAIN_CLASSES
        and conv.stride == conv.dilation == (1, 1)
        and all(size % 2 == 1 for size in conv.kernel_size)
        and conv.padding == tuple(size // 2 for size in conv.kernel_size)
        and conv.groups == 1
        and conv.padding_mode == "zeros"
        # Detectron2's convolution has these two besides.
        and getattr(conv, "norm", None) is None
        and getattr(conv, "activation", None) is None
    )
