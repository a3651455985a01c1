"""Four images in one (YOLOv4, arXiv 2004.10934, Sec. 3.3)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from detectron2.data import transforms as T

from .sample import Sample

__all__ = ["FILL", "Mosaic"]

FILL = 128
"""Grey between the images, as Detectron2's FixedSizeCrop pads."""


class Mosaic:
    """Put a sample and three others around a point, each cropped to its part of the canvas."""

    def __init__(
        self, size: Sequence[int], scale: Sequence[float] = (0.5, 1.0), center: float = 0.25
    ):
        """
        Args:
            size: (height, width) of the canvas, px.
            scale: bounds of each image's size, where 1 fits the whole image into the canvas.
            center: the point's smallest distance to each side, as a fraction of height and width,
                in (0, 0.5].
        """
        self.height, self.width = size
        self.min_scale, self.max_scale = scale
        self.center = center

    def __call__(
        self, sample: Sample, draw: Callable[[], Sample], min_visible: float = 0.0
    ) -> Sample:
        """Return the mosaic.

        Args:
            sample: one of the four.
            draw: gives another one.
            min_visible: see :meth:`Sample.with_boxes`.
        """
        low, high = self.center, 1 - self.center
        x = round(self.width * np.random.uniform(low, high))
        y = round(self.height * np.random.uniform(low, high))
        canvas = np.full((self.height, self.width, 3), FILL, dtype=np.uint8)
        parts = []
        for corner, part in enumerate([sample, draw(), draw(), draw()]):
            parts.append(self._place(part, canvas, x, y, corner, min_visible))
        return Sample(
            canvas,
            np.concatenate([part.boxes for part in parts]),
            np.concatenate([part.classes for part in parts]),
            np.concatenate([part.ignored for part in parts]),
            np.concatenate([part.visible for part in parts]),
        )

    def _place(
        self, sample: Sample, canvas: np.ndarray, x: int, y: int, corner: int, min_visible: float
    ) -> Sample:
        """Draw one image on the canvas, with its inner corner at (x, y); return it, moved."""
        is_left, is_top = corner % 2 == 0, corner < 2
        sample = self._resize(sample)
        height, width = sample.image.shape[:2]
        w = min(width, x if is_left else self.width - x)
        h = min(height, y if is_top else self.height - y)
        crop = T.CropTransform(width - w if is_left else 0, height - h if is_top else 0, w, h)
        sample = sample.apply(crop, min_visible)
        left, top = (x - w if is_left else x), (y - h if is_top else y)
        canvas[top : top + h, left : left + w] = sample.image
        moved = sample.boxes + np.array([left, top, left, top])
        return sample.with_boxes(canvas, moved, "Mosaic", min_visible)

    def _resize(self, sample: Sample) -> Sample:
        height, width = sample.image.shape[:2]
        ratio = min(self.height / height, self.width / width)
        ratio *= np.random.uniform(self.min_scale, self.max_scale)
        new = max(round(height * ratio), 1), max(round(width * ratio), 1)
        return sample.apply(T.ResizeTransform(height, width, *new))
