"""Images, ground truth and head outputs made from random numbers, the same every time.

Letters: N images, A anchors per location, K classes, R anchors over all levels.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from detectron2.structures import Boxes, Instances
from torch import Tensor
from torch.nn import functional as F

from ..losses import level_views
from .settings import Settings

__all__ = [
    "expected_passing",
    "level_features",
    "make_batch",
    "random_gt",
    "shift_to_passing",
    "synthetic_outputs",
]

SCORES_PASSING = 3000
"""Entries of an image whose score is above SCORE_THRESH_TEST, in the order of a trained model's."""

_SMALLEST_BOX = 16.0  # pixels


def random_gt(
    size: tuple[int, int], count: int, num_classes: int, generator: torch.Generator
) -> Instances:
    """``count`` boxes inside of an image; sides from 16 pixels to 0.6 of it, evenly in logarithm.

    Args:
        size: (height, width) in pixels.
        count: M.
        num_classes: K.
        generator: of the random numbers.
    """
    height, width = size
    limits = torch.tensor([width, height], dtype=torch.float32)
    smallest = limits.clamp(max=_SMALLEST_BOX)
    share = torch.rand(count, 2, generator=generator)
    sides = smallest * (0.6 * limits / smallest).clamp(min=1) ** share
    corner = torch.rand(count, 2, generator=generator) * (limits - sides)
    gt = Instances(size)
    gt.gt_boxes = Boxes(torch.cat([corner, corner + sides], dim=1))
    gt.gt_classes = torch.randint(0, num_classes, (count,), generator=generator)
    return gt


def make_batch(settings: Settings, num_images: int) -> list[dict[str, Any]]:
    """``num_images`` inputs of a Detectron2 model: a backdrop, a rectangle per object, noise."""
    generator = torch.Generator().manual_seed(1)
    return [_make_input(settings, generator) for _ in range(num_images)]


def _make_input(settings: Settings, generator: torch.Generator) -> dict[str, Any]:
    height, width = settings.size
    coarse = torch.rand(1, 3, 4, 5, generator=generator) * 200
    image = F.interpolate(coarse, (height, width), mode="bilinear")[0]
    gt = random_gt(settings.size, settings.num_gt, settings.num_classes, generator)
    for left, top, right, bottom in gt.gt_boxes.tensor.int().tolist():
        color = torch.rand(3, 1, 1, generator=generator) * 255
        image[:, top:bottom, left:right] = color
    image += torch.randn(3, height, width, generator=generator) * 10
    image = image.clamp(0, 255).to(torch.uint8)
    return {"image": image, "instances": gt, "height": height, "width": width}


def level_features(
    model: Any, size: tuple[int, int], num_images: int, channels: int = 1
) -> list[Tensor]:
    """Uninitialised feature maps (N, channels, Hi, Wi) as the model's backbone would shape them.

    Args:
        model: Detectron2's RetinaNet or ours.
        size: (height, width) of the images, in pixels.
    """
    shapes = model.backbone.output_shape()
    divisor = max(model.backbone.size_divisibility, 1)
    padded = [math.ceil(side / divisor) * divisor for side in size]
    strides = [shapes[name].stride for name in model.head_in_features]
    return [
        torch.empty(
            (num_images, channels, *(math.ceil(side / stride) for side in padded)),
            device=model.device,
        )
        for stride in strides
    ]


def synthetic_outputs(
    features: list[Tensor], labels: Tensor, num_classes: int, score_thresh: float
) -> tuple[list[Tensor], list[Tensor]]:
    """What a half-trained head might put out: noise, and higher logits at the objects.

    About :data:`SCORES_PASSING` entries of each image score above ``score_thresh``.

    Args:
        features: L maps (N, C, Hi, Wi).
        labels: (N, R), see :class:`retinanet_ext.structures.DenseTargets`.
        num_classes: K.
        score_thresh: in [0, 1].

    Returns:
        Logits (N, A*K, Hi, Wi) and deltas (N, A*4, Hi, Wi) of each level.
    """
    generator = torch.Generator().manual_seed(2)
    device, num_images = labels.device, labels.shape[0]
    num_locations = sum(math.prod(x.shape[-2:]) for x in features)
    num_anchors = labels.shape[1] // num_locations

    def noise(channels: int, std: float) -> list[Tensor]:
        shapes = [(num_images, num_anchors * channels, *x.shape[-2:]) for x in features]
        return [torch.randn(s, generator=generator).mul_(std).to(device) for s in shapes]

    logits, deltas = noise(num_classes, 1.0), noise(4, 0.2)
    for x, y in level_views(logits, labels, num_classes):
        n, a, _, row, column = ((y >= 0) & (y < num_classes)).nonzero(as_tuple=True)
        x[n, a, y[n, a, 0, row, column], row, column] += 4.5
    shift = shift_to_passing(logits, score_thresh)
    return [x.add_(shift) for x in logits], deltas


def expected_passing(num_entries: int) -> int:
    """How many of an image's entries pass: SCORES_PASSING, but 2 % of them at most."""
    return max(1, min(SCORES_PASSING, num_entries // 50))


def shift_to_passing(logits: list[Tensor], score_thresh: float) -> float:
    """What to add to ``logits`` so that :func:`expected_passing` entries per image pass.

    Args:
        logits: L tensors (N, A*K, Hi, Wi).
        score_thresh: in [0, 1]; values at the ends are taken as 0.001 and 0.999.
    """
    num_images = logits[0].shape[0]
    num_entries = sum(x.numel() for x in logits)
    wanted = expected_passing(num_entries // num_images) * num_images
    best = torch.cat([x.flatten().topk(min(wanted + 1, x.numel())).values for x in logits])
    # Between two values, so that rounding takes none of them across.
    last_in, first_out = best.topk(wanted + 1).values[-2:].tolist()
    threshold = min(max(score_thresh, 0.001), 0.999)
    return math.log(threshold / (1 - threshold)) - (last_in + first_out) / 2
