"""Augmentations that Detectron2 lacks; each draws from numpy's global generator, as its own do.

Images are (H, W, 3) uint8, RGB.
"""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from detectron2.data import transforms as T
from PIL import Image, ImageFilter

from .mosaic import FILL

__all__ = [
    "RandomBlur",
    "RandomJPEG",
    "RandomNoise",
    "RandomRotation90",
    "RandomZoomOut",
    "Rotation90Transform",
]


class Rotation90Transform(T.Transform):
    """Quarter turns, counter-clockwise as seen; no pixel is interpolated and boxes stay exact."""

    def __init__(self, height: int, width: int, turns: int):
        """
        Args:
            height, width: of the image, px.
            turns: number of quarter turns.
        """
        super().__init__()
        self.height, self.width, self.turns = height, width, turns % 4

    def apply_image(self, img: np.ndarray) -> np.ndarray:
        """Turn an image (H, W, ...)."""
        return np.ascontiguousarray(np.rot90(img, self.turns))

    def apply_coords(self, coords: np.ndarray) -> np.ndarray:
        """Turn points (N, 2), x and y in px."""
        x, y = coords[:, 0], coords[:, 1]
        turned = (
            (x, y),
            (y, self.width - x),
            (self.width - x, self.height - y),
            (self.height - y, x),
        )
        return np.stack(turned[self.turns], axis=1)

    def inverse(self) -> T.Transform:
        """The turn back."""
        height, width = self.height, self.width
        if self.turns % 2:
            height, width = width, height
        return Rotation90Transform(height, width, -self.turns)


class RandomRotation90(T.Augmentation):
    """Turn the image by one of some multiples of 90 degrees."""

    def __init__(self, angles: Sequence[int] = (0, 90, 180, 270)):
        """
        Args:
            angles: degrees counter-clockwise, multiples of 90; all equally likely.
        """
        super().__init__()
        self.angles = tuple(angles)

    def get_transform(self, image: np.ndarray) -> T.Transform:
        """Draw one."""
        angle = int(np.random.choice(self.angles))
        height, width = image.shape[:2]
        return Rotation90Transform(height, width, angle // 90)


class RandomZoomOut(T.Augmentation):
    """The image somewhere on a larger canvas, so that objects are smaller once it is resized (SSD).

    The canvas is grey and has the image's shape.
    """

    def __init__(self, max_ratio: float = 4.0):
        """
        Args:
            max_ratio: largest side of the canvas, in sides of the image; from 1 on.
        """
        super().__init__()
        self.max_ratio = max_ratio

    def get_transform(self, image: np.ndarray) -> T.Transform:
        """Draw the size of the canvas and the image's place on it."""
        height, width = image.shape[:2]
        ratio = np.random.uniform(1, self.max_ratio)
        down, right = int(height * ratio) - height, int(width * ratio) - width
        top, left = np.random.randint(down + 1), np.random.randint(right + 1)
        return T.PadTransform(left, top, right - left, down - top, width, height, pad_value=FILL)


class RandomBlur(T.Augmentation):
    """Gaussian blur."""

    def __init__(self, sigma_min: float, sigma_max: float):
        """
        Args:
            sigma_min, sigma_max: bounds of its standard deviation, px.
        """
        super().__init__()
        self.sigma_min, self.sigma_max = sigma_min, sigma_max

    def get_transform(self, image: np.ndarray) -> T.Transform:
        """Draw a strength."""
        sigma = np.random.uniform(self.sigma_min, self.sigma_max)
        return T.PILColorTransform(lambda img: img.filter(ImageFilter.GaussianBlur(sigma)))


class RandomNoise(T.Augmentation):
    """Gaussian noise, drawn for each pixel and channel."""

    def __init__(self, std_min: float, std_max: float):
        """
        Args:
            std_min, std_max: bounds of its standard deviation, as shares of the range of 255.
        """
        super().__init__()
        self.std_min, self.std_max = std_min, std_max

    def get_transform(self, image: np.ndarray) -> T.Transform:
        """Draw a strength and the noise."""
        std = 255 * np.random.uniform(self.std_min, self.std_max)
        noise = np.random.normal(scale=std, size=image.shape).astype(np.float32)
        return T.ColorTransform(lambda img: (img + noise).round().clip(0, 255).astype(np.uint8))


class RandomJPEG(T.Augmentation):
    """The artefacts of JPEG."""

    def __init__(self, quality_min: int, quality_max: int):
        """
        Args:
            quality_min, quality_max: bounds of Pillow's quality, both included, in [1, 95].
        """
        super().__init__()
        self.quality_min, self.quality_max = quality_min, quality_max

    def get_transform(self, image: np.ndarray) -> T.Transform:
        """Draw a quality."""
        quality = int(np.random.randint(self.quality_min, self.quality_max + 1))
        return T.PILColorTransform(lambda img: _through_jpeg(img, quality))


def _through_jpeg(image: Image.Image, quality: int) -> Image.Image:
    file = io.BytesIO()
    image.save(file, format="JPEG", quality=quality)
    return Image.open(file)
