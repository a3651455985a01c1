"""The views of a picture, or of a tile, that test-time augmentation looks at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import transforms as T

from ...data.loading.pixels import PictureMapper, ResizeShortestEdge

__all__ = ["Seen", "View", "is_plain", "views_of"]

LARGE = 2**26
"""Bytes of pixels from which channels are resized one after the other: Pillow copies its input
twice, and gives it four bytes a pixel. The result is the same."""


@dataclass(frozen=True)
class Seen:
    """What a view shows of some pixels.

    Attributes:
        image: (C, h, w) uint8, the network's input.
        transforms: from the pixels to the image.
    """

    image: torch.Tensor
    transforms: T.TransformList

    def boxes_back(self, boxes: np.ndarray) -> np.ndarray:
        """Boxes (N, 4) XYXY in pixels of the view, in those of what it is a view of."""
        return self.transforms.inverse().apply_box(boxes)


@dataclass(frozen=True)
class View:
    """A way to look at pixels: resized, and perhaps mirrored.

    Attributes:
        resizing: Detectron2's augmentations that do it.
        flip: whether left and right are exchanged after that.
        key: views with equal ones make pictures of equal size out of pixels of equal size.
    """

    resizing: Sequence[Any]
    flip: bool = False
    key: Any = None

    def __call__(self, pixels: np.ndarray) -> Seen:
        """Look at (H, W, C) uint8 pixels."""
        by_channel = pixels.nbytes > LARGE
        aug_input = T.AugInput(pixels[:, :, :1] if by_channel else pixels)
        transforms: Any = T.AugmentationList(self.resizing)(aug_input)
        image = aug_input.image
        if by_channel:
            others = [pixels[:, :, i : i + 1] for i in range(1, pixels.shape[2])]
            image = np.concatenate([image, *map(transforms.apply_image, others)], axis=2)
        if self.flip:
            # Not RandomFlip, which takes a number of the run's random ones.
            flip = T.HFlipTransform(image.shape[1])
            image, transforms = flip.apply_image(image), transforms + flip
        image = np.ascontiguousarray(image.transpose(2, 0, 1))
        return Seen(torch.as_tensor(image), transforms)


def views_of(cfg: CfgNode) -> list[View]:
    """The views of ``TEST.AUG``, or only that of the evaluation.

    As in Detectron2: one for each of MIN_SIZES and, with FLIP, its mirror image. Detectron2 resizes
    what ``INPUT.MIN_SIZE_TEST`` has resized already; here each view is made of the picture itself.
    """
    aug = cfg.TEST.AUG
    if is_plain(cfg):
        return [View(PictureMapper(cfg, is_train=False).augmentations.augs)]
    return [
        View([ResizeShortestEdge(size, aug.MAX_SIZE)], flip, size)
        for size in dict.fromkeys(aug.MIN_SIZES)
        for flip in ((False, True) if aug.FLIP else (False,))
    ]


def is_plain(cfg: CfgNode) -> bool:
    """Whether the only view is the one that the evaluation has without ``TEST.AUG``."""
    aug, inputs = cfg.TEST.AUG, cfg.INPUT
    as_evaluated = {inputs.MIN_SIZE_TEST}, inputs.MAX_SIZE_TEST
    return not aug.ENABLED or (not aug.FLIP and (set(aug.MIN_SIZES), aug.MAX_SIZE) == as_evaluated)
