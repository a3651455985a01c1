"""A classification convolution and its focal loss, tile by tile.

A tile is a range of output channels, over some images of a level: its logits, their loss and their
gradient are made, the gradient is carried back through the convolution into those of features,
weight and bias, and the tile is dropped. What is kept does not grow with the number of locations
times classes, and the arithmetic is that of the plain way, convolution for convolution.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..precision import at_least_float32
from .dispatch import focal_loss_and_gradient
from .gradients import needs_grad, scale_saved_grads
from .tiles import Tile, plan_tiles


def conv_focal_in_tiles(
    features: Sequence[Tensor],
    weight: Tensor,
    bias: Tensor | None,
    labels: Tensor,
    num_classes: int,
    alpha: float,
    gamma: float,
    kernel: str,
    max_bytes: int,
) -> Tensor:
    """:func:`retinanet_ext.losses.conv_focal_loss` of checked arguments, but for "reference".

    Args:
        features: L tensors (N, C, Hi, Wi) in the precision that the convolution runs in.
        max_bytes: size of the logits that exist at a time.
    """
    wanted = needs_grad([weight, bias, *features])
    settings = _Settings(num_classes, alpha, gamma, kernel, max_bytes, wanted)
    return _ConvFocalLoss.apply(labels, settings, weight, bias, *features)


class _Settings(NamedTuple):
    num_classes: int
    alpha: float
    gamma: float
    kernel: str
    max_chunk_bytes: int
    wanted: bool


class _ConvFocalLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        labels: Tensor,
        settings: _Settings,
        weight: Tensor,
        bias: Tensor | None,
        *features: Tensor,
    ) -> Tensor:
        needs = [settings.wanted and need for need in ctx.needs_input_grad[2:]]
        run = _Run(weight, bias, settings, *needs[:2])
        num_anchors = len(weight) // settings.num_classes
        sizes = [x.shape[2] * x.shape[3] * num_anchors for x in features]
        feature_gradients = [
            run.level(x, y.unflatten(1, (-1, num_anchors)), need)
            for x, y, need in zip(features, labels.split(sizes, 1), needs[2:], strict=True)
        ]
        ctx.gradients = [*run.parameter_gradients(), *feature_gradients]
        ctx.scale = 1.0
        return run.loss.to(at_least_float32(features[0][:0]).dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        return None, None, *scale_saved_grads(ctx, grad_output)


class _Run:
    """One forward pass: the loss and the parameters' gradients, as they add up over the tiles."""

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor | None,
        settings: _Settings,
        need_weight: bool,
        need_bias: bool,
    ):
        self.weight, self.bias, self.settings = weight, bias, settings
        self.loss = weight.new_zeros((), dtype=torch.float64)
        # Half precision would lose digits with every tile that is added.
        dtype = at_least_float32(weight[:0]).dtype
        self.weight_gradient = torch.zeros_like(weight, dtype=dtype) if need_weight else None
        self.bias_gradient = (
            torch.zeros_like(bias, dtype=dtype) if need_bias and bias is not None else None
        )

    def parameter_gradients(self) -> list[Tensor | None]:
        """Gradients of weight and bias in their dtypes."""
        pairs = (self.weight_gradient, self.weight), (self.bias_gradient, self.bias)
        return [None if x is None or like is None else x.to(like.dtype) for x, like in pairs]

    def level(self, x: Tensor, labels: Tensor, need_features: bool) -> Tensor | None:
        """Add a level (N, C, Hi, Wi) with labels (N, Hi*Wi, A); return its gradient if needed."""
        steps = plan_tiles(x, self.weight, self.settings.num_classes, self.settings.max_chunk_bytes)
        # On CPUs the weight's gradient takes 2 to 3 times as long in the channels_last format.
        dense = x.contiguous() if x.device.type == "cpu" else x
        gradients = []
        for images, tiles in steps:
            total: Tensor | None = None
            for tile in tiles:
                part = self.tile(dense[images], labels[images], tile, need_features)
                if part is not None:
                    total = at_least_float32(part) if total is None else total.add_(part)
            if total is not None:
                gradients.append(total.to(x.dtype))
        if not need_features:
            return None
        if not gradients:  # an empty level
            return torch.zeros_like(x)
        gradient = gradients[0] if len(gradients) == 1 else torch.cat(gradients)
        return gradient if dense is x else torch.empty_like(x).copy_(gradient)

    def tile(self, x: Tensor, labels: Tensor, tile: Tile, need_features: bool) -> Tensor | None:
        """Add the channels of ``tile``; return what they give to the gradient of ``x``."""
        settings = self.settings
        channels = tile.channels(settings.num_classes)
        weight = self.weight[channels].to(x.dtype)
        bias = None if self.bias is None else self.bias[channels].to(x.dtype)
        need_weight, need_bias = self.weight_gradient is not None, self.bias_gradient is not None
        loss, gradients = focal_loss_and_gradient(
            [F.conv2d(x, weight, bias, padding="same")],
            tile.labels(labels, settings.num_classes),
            tile.last_class - tile.first_class,
            settings.alpha,
            settings.gamma,
            with_gradient=need_features or need_weight or need_bias,
            kernel=settings.kernel,
        )
        self.loss += loss
        if self.bias_gradient is not None:
            sums = gradients[0].sum((0, 2, 3), dtype=self.bias_gradient.dtype)
            self.bias_gradient[channels] += sums
        if not need_features and not need_weight:
            return None
        feature_part, weight_part = _convolution_backward(
            gradients[0], x, weight, need_features, need_weight
        )
        if self.weight_gradient is not None and weight_part is not None:
            self.weight_gradient[channels] += weight_part
        return feature_part


def _convolution_backward(
    gradient: Tensor, x: Tensor, weight: Tensor, need_features: bool, need_weight: bool
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients of x and weight, given that of ``conv2d(x, weight, padding="same")``."""
    padding = [size // 2 for size in weight.shape[2:]]
    stride, dilation, output_padding, groups, transposed = [1, 1], [1, 1], [0, 0], 1, False
    feature_part, weight_part, _ = torch.ops.aten.convolution_backward(
        gradient,
        x,
        weight,
        None,
        stride,
        padding,
        dilation,
        transposed,
        output_padding,
        groups,
        [need_features, need_weight, False],
    )
    return feature_part, weight_part
