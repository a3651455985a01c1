"""The last classification convolution and its focal loss in one: no logits in memory."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from .focal import check_focal_arguments, sigmoid_focal_loss
from .kernels.conv_focal import conv_focal_in_tiles
from .kernels.dispatch import check_kernel

# Logits of a tile, in bytes; its gradient takes as much again.
CHUNK_BYTES = {"cpu": 16 << 20, "cuda": 64 << 20}


def conv_focal_loss(
    features: Sequence[Tensor],
    weight: Tensor,
    bias: Tensor | None,
    labels: Tensor,
    num_classes: int,
    alpha: float = 0.25,
    gamma: float = 2.0,
    kernel: str = "auto",
    max_chunk_bytes: int | None = None,
) -> Tensor:
    """Sum of the focal loss of ``conv2d(features, weight, bias)`` against integer labels.

    Equal, gradients included, to :func:`retinanet_ext.losses.sigmoid_focal_loss` of the
    convolution's outputs, which never exist as a whole. All gradients are made in the forward pass,
    as far as they are asked for; they cannot be differentiated again. The convolution runs in the
    features' precision, or in autocast's where that is on; weight and bias gradients are summed in
    float32 or better. float16 gradients pass the convolution before a GradScaler multiplies them,
    so bfloat16 is the better choice here.

    Args:
        features: L tensors (N, C, Hi, Wi), the class subnet's last activations.
        weight: (A*K, C, kh, kw) with odd kh and kw; stride 1, zero padding to the same size.
        bias: (A*K,) or None.
        labels: (N, R), R in the order (level, Hi, Wi, A), in {-1 ignore, 0..K-1, K background}.
        num_classes: K.
        alpha, gamma: see :func:`retinanet_ext.losses.focal_loss`.
        kernel: see :func:`retinanet_ext.losses.sigmoid_focal_loss`; "reference" does make the
            logits and leaves all gradients to autograd.
        max_chunk_bytes: size of the logits that exist at a time, and of the part of the weight that
            makes them; one channel of one image is the least. Default: 16 MiB, on CUDA 64 MiB.

    Raises:
        ValueError: if a shape, kernel, alpha, gamma or ``max_chunk_bytes`` is out of range.
    """
    check_focal_arguments(alpha, gamma)
    check_kernel(kernel)
    _check_shapes(features, weight, bias, labels, num_classes)
    if max_chunk_bytes is None:
        max_chunk_bytes = CHUNK_BYTES.get(weight.device.type, CHUNK_BYTES["cpu"])
    if max_chunk_bytes < 1:
        raise ValueError(f"max_chunk_bytes must be at least 1, got {max_chunk_bytes}")
    dtype = _convolution_dtype(features[0])
    features = [x.to(dtype) for x in features]
    if kernel == "reference":
        parameters = weight.to(dtype), None if bias is None else bias.to(dtype)
        logits = [F.conv2d(x, *parameters, padding="same") for x in features]
        return sigmoid_focal_loss(logits, labels, num_classes, alpha, gamma, kernel=kernel)
    return conv_focal_in_tiles(
        features, weight, bias, labels, num_classes, alpha, gamma, kernel, max_chunk_bytes
    )


def _convolution_dtype(x: Tensor) -> torch.dtype:
    """The precision in which a convolution of ``x`` runs here: its own, or autocast's."""
    tiny = x.detach().new_zeros(1, 1)
    return (tiny @ tiny).dtype


def _check_shapes(
    features: Sequence[Tensor],
    weight: Tensor,
    bias: Tensor | None,
    labels: Tensor,
    num_classes: int,
) -> None:
    odd = all(size % 2 for size in weight.shape[2:])
    if weight.dim() != 4 or weight.shape[0] % num_classes or not odd:
        raise ValueError(
            f"weight must be (A*{num_classes}, C, kh, kw) with odd kh and kw, got "
            f"{tuple(weight.shape)}"
        )
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ValueError(f"bias must be ({weight.shape[0]},) as weight, got {tuple(bias.shape)}")
    if not features:
        raise ValueError("features must hold at least one level, got none")
    for x in features:
        if x.dim() != 4 or x.shape[1] != weight.shape[1] or len(x) != len(features[0]):
            raise ValueError(
                f"features of a level must be ({len(features[0])}, {weight.shape[1]}, Hi, Wi) for "
                f"this weight and the first level's images, got {tuple(x.shape)}"
            )
        if x.dtype != features[0].dtype:
            raise ValueError(f"features must share a dtype, got {features[0].dtype} and {x.dtype}")
    anchors = sum(x.shape[2] * x.shape[3] for x in features) * (weight.shape[0] // num_classes)
    if tuple(labels.shape) != (len(features[0]), anchors):
        raise ValueError(
            f"labels must be {(len(features[0]), anchors)} for these features and weight, got "
            f"{tuple(labels.shape)}"
        )
