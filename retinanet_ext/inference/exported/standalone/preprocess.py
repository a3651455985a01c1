"""From a picture to the input of the exported detector, exactly as in its evaluation.

Needs NumPy and Pillow. ``meta`` is the content of the ``model.json`` beside this file.

    pixels = read("photo.jpg", meta)           # (H, W, C) uint8, upright
    small = resize(pixels, meta)               # (h, w, C) uint8
    images = batch([small], meta)              # (1, C, h, w) float32
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageOps

DEEP_MODES = ("I;16", "I;16L", "I;16B", "I;16N", "I", "F")  # more than 8 bits


def load_meta(folder: str) -> dict[str, Any]:
    """The content of ``model.json``."""
    with open(os.path.join(folder, "model.json"), encoding="utf-8") as file:
        return json.load(file)


def read(path: str, meta: Mapping[str, Any]) -> np.ndarray:
    """Pixels (H, W, C) uint8 of a file, turned as its EXIF data say, in ``input.channels``."""
    with Image.open(path) as image:
        image.load()  # a TIFF is turned here
        # Damaged EXIF data, which Pillow stumbles over in many ways, tell nothing.
        with contextlib.suppress(Exception):
            image = ImageOps.exif_transpose(image)
        if image.mode in DEEP_MODES:
            image = Image.fromarray(_eight_bits(image, meta["resize"]["sixteen_bit"], path))
        channels = meta["input"]["channels"]
        pixels = np.asarray(image.convert("L" if channels == "L" else "RGB"))
    if channels == "L":
        return pixels[:, :, None]
    return pixels[:, :, ::-1] if channels == "BGR" else pixels


def resized_size(height: int, width: int, meta: Mapping[str, Any]) -> tuple[int, int]:
    """Height and width of a picture of this size as the detector sees it.

    The shorter side becomes ``resize.shorter``, unless the longer one would then be longer than
    ``resize.longer``, which it becomes instead; 0.5 is rounded up, and no side has less than 1 px.
    """
    shorter, longer = meta["resize"]["shorter"], meta["resize"]["longer"]
    if shorter == 0:
        return height, width
    scale = shorter / min(height, width)
    new_height, new_width = (
        (shorter, scale * width) if height < width else (scale * height, shorter)
    )
    if max(new_height, new_width) > longer:
        scale = longer * 1.0 / max(new_height, new_width)
        new_height, new_width = new_height * scale, new_width * scale
    return max(1, int(new_height + 0.5)), max(1, int(new_width + 0.5))


def resize(pixels: np.ndarray, meta: Mapping[str, Any]) -> np.ndarray:
    """Pixels (h, w, C) uint8 of the size that the detector sees; Pillow's bilinear filter."""
    height, width = resized_size(pixels.shape[0], pixels.shape[1], meta)
    if (height, width) == pixels.shape[:2]:
        return np.ascontiguousarray(pixels)
    gray = pixels.shape[2] == 1
    image = Image.fromarray(np.ascontiguousarray(pixels[:, :, 0] if gray else pixels))
    small = np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))
    return small[:, :, None] if gray else small


def batch(pictures: Sequence[np.ndarray], meta: Mapping[str, Any]) -> np.ndarray:
    """Resized pictures as one input (N, C, H, W) float32, 0 to 255.

    Smaller ones are filled up at the right and below with the mean colour, which is 0 once the file
    has normalised it.
    """
    fixed = meta["input"]["height"], meta["input"]["width"]
    heights, widths = zip(*(x.shape[:2] for x in pictures), strict=True)
    height = max(heights) if fixed[0] is None else fixed[0]
    width = max(widths) if fixed[1] is None else fixed[1]
    if max(heights) > height or max(widths) > width:
        raise ValueError(
            f"a picture of {max(heights)} x {max(widths)} px after resizing does not fit into the "
            f"{height} x {width} px of the exported file; turn it, or export with --size dynamic"
        )
    mean = np.asarray(meta["input"]["mean"], dtype=np.float32).reshape(1, -1, 1, 1)
    images = np.empty((len(pictures), mean.size, height, width), dtype=np.float32)
    images[:] = mean
    for image, pixels in zip(images, pictures, strict=True):
        image[:, : pixels.shape[0], : pixels.shape[1]] = pixels.transpose(2, 0, 1)
    return images


def normalized(images: np.ndarray, meta: Mapping[str, Any]) -> np.ndarray:
    """What the file itself makes of its input first: normalised, padded to the divisor.

    For whoever builds the network another way; a file of this folder is never given this.
    """
    mean, std = (
        np.asarray(meta["input"][name], dtype=np.float32).reshape(1, -1, 1, 1)
        for name in ("mean", "std")
    )
    height, width = (-x % meta["input"]["divisor"] for x in images.shape[2:])
    return np.pad((images - mean) / std, ((0, 0), (0, 0), (0, height), (0, width)))


def _eight_bits(image: Image.Image, rule: str, path: str) -> np.ndarray:
    values = np.asarray(image).astype(np.float64)
    top = 1.0 if image.mode == "F" else 65535.0
    if rule == "minmax":
        top, values = float(values.max() - values.min()), values - values.min()
    elif rule != "full" or values.min() < 0 or values.max() > top:
        raise ValueError(
            f"{path} has pixels of mode {image.mode}; resize.sixteen_bit of model.json is '{rule}'"
        )
    return np.rint(values * (255.0 / top if top else 0.0)).astype(np.uint8)
