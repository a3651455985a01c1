"""One image with its boxes on the way through the augmentations."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from detectron2.data import transforms as T

from ...errors import InputError

__all__ = ["Sample"]


@dataclass(frozen=True, eq=False)
class Sample:
    """An image and its M boxes, all of them within it.

    Attributes:
        image: (H, W, 3) uint8, RGB.
        boxes: (M, 4) float64, absolute XYXY, px of the image.
        classes: (M,) int64.
        ignored: (M,) bool, boxes that are not to be learned.
        visible: (M,) float64 in (0, 1], the fraction of each box's area that is left of it.
    """

    image: np.ndarray
    boxes: np.ndarray
    classes: np.ndarray
    ignored: np.ndarray
    visible: np.ndarray

    @staticmethod
    def create(
        image: np.ndarray, boxes: np.ndarray, classes: np.ndarray, ignored: np.ndarray
    ) -> Sample:
        """A sample as the dataset has it, its boxes clipped to the image and empty ones dropped.

        Raises:
            ValueError: a box is not finite.
        """
        visible = np.ones(len(boxes))
        boxes = boxes.astype(np.float64)  # of whole numbers, transforms make whole numbers
        return Sample(image, boxes, classes, ignored, visible).with_boxes(image, boxes, "dataset")

    def augment(self, augmentation: T.Augmentation, min_visible: float = 0.0) -> Sample:
        """Apply an augmentation; see :meth:`with_boxes`.

        The augmentation sees the boxes to be learned; the ignored ones follow.
        """
        aug_input = T.AugInput(self.image, boxes=self.boxes[~self.ignored])
        transform = augmentation(aug_input)
        moved = transform.apply_box(self.boxes).reshape(-1, 4) if len(self.boxes) else self.boxes
        return self.with_boxes(aug_input.image, moved, type(augmentation).__name__, min_visible)

    def apply(self, transform: T.Transform, min_visible: float = 0.0) -> Sample:
        """Apply a transform; see :meth:`with_boxes`."""
        moved = transform.apply_box(self.boxes).reshape(-1, 4) if len(self.boxes) else self.boxes
        image = transform.apply_image(self.image)
        return self.with_boxes(image, moved, type(transform).__name__, min_visible)

    def with_boxes(
        self, image: np.ndarray, boxes: np.ndarray, source: str, min_visible: float = 0.0
    ) -> Sample:
        """This sample with another image and its boxes moved, checked and clipped to the image.

        Empty boxes are dropped, and of those to be learned all with less than ``min_visible`` of
        their area left, counted over all steps.

        Args:
            image: (H', W', 3) uint8.
            boxes: (M, 4), where this sample's boxes are now, before clipping.
            source: what moved them, for the message.
            min_visible: in [0, 1).

        Raises:
            ValueError: a box is not finite.
        """
        if not np.isfinite(boxes).all():
            row = int(np.flatnonzero(~np.isfinite(boxes).all(axis=1))[0])
            raise InputError(f"{source}: box {boxes[row].tolist()} is not finite")
        if not image.flags.writeable:  # as Pillow gives them, which torch warns of
            image = image.copy()
        height, width = image.shape[:2]
        clipped = np.clip(boxes, 0, [width, height, width, height])
        before, after = _areas(boxes), _areas(clipped)
        visible = self.visible * after / np.maximum(before, np.finfo(float).tiny)
        kept = (after > 0) & (self.ignored | (visible >= min_visible))
        return Sample(image, clipped, self.classes, self.ignored, visible)._take(kept)

    def _take(self, kept: np.ndarray) -> Sample:
        return replace(
            self,
            boxes=self.boxes[kept],
            classes=self.classes[kept],
            ignored=self.ignored[kept],
            visible=self.visible[kept],
        )


def _areas(boxes: np.ndarray) -> np.ndarray:
    """(M,); 0 for boxes with x2 < x1 or y2 < y1."""
    return np.prod(np.maximum(boxes[:, 2:] - boxes[:, :2], 0), axis=1)
