"""Weights by a name of :mod:`retinanet_ext.weights.pretrained`, for one model."""

from __future__ import annotations

from typing import Any

from torch import nn

from ...weights.pretrained import check_pixels, find_pretrained, local_file, read_pretrained

_PIXEL_BUFFERS = ("pixel_mean", "pixel_std")


def read_by_name(address: str, model: nn.Module) -> tuple[str, dict[str, Any] | None]:
    """Check the pixels, and read ImageNet weights for the network under the pyramid.

    Args:
        address: a name.
        model: what they are for, with its ``pixel_mean`` and ``pixel_std``.

    Returns:
        Path of the file, and its content where it is that of the network under the pyramid only;
        a detector's is left to the checkpointer: None.

    Raises:
        ConfigError: the model takes other pixels than the weights.
        WeightsError, ImportError: the file cannot be had.
    """
    found = find_pretrained(address)
    mean, std = (getattr(model, name).flatten().tolist() for name in _PIXEL_BUFFERS)
    check_pixels(found, getattr(model, "input_format", "BGR"), mean, std)
    path = local_file(found)
    return path, None if found.is_detector else read_pretrained(found, path, trunk_of(model))


def trunk_of(model: nn.Module) -> str:
    """What names of the network under the pyramid start with."""
    has_pyramid = hasattr(model.backbone, "bottom_up")
    return "backbone.bottom_up." if has_pyramid else "backbone."
