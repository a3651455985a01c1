"""What the two detectors that slide a window learn from: objects cut out, and crops at any size."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from .scanning import CORE, Picture, resize

__all__ = ["GREY", "object_windows", "random_crop"]

GREY = 114  # of what is around a picture


def object_windows(
    pictures: Sequence[Picture], window: int, most: int, rng: np.random.Generator
) -> tuple[list[np.ndarray], np.ndarray]:
    """Windows around objects, a little off as those of a scan are, and the objects' classes.

    Args:
        pictures: with their objects; those whose window leaves the picture are left out.
        window: pixels of the windows' sides.
        most: how many objects to take, and the rest of a picture's.
        rng: draws pictures and how far off the windows are.

    Returns:
        (window, window, 3) uint8 each, and (N,).
    """
    found, labels = [], []
    for i in rng.permutation(len(pictures)):
        rgb = pictures[i].rgb()
        for (x0, y0, x1, y1), label in zip(pictures[i].boxes, pictures[i].labels, strict=True):
            side = max(x1 - x0, y1 - y0) / CORE * rng.uniform(0.92, 1.08)
            x, y = (np.array([x0 + x1, y0 + y1]) - side) / 2 + rng.uniform(-0.04, 0.04, 2) * side
            inside = min(x, y) >= 0 and max(x + side - rgb.shape[1], y + side - rgb.shape[0]) <= 0
            if inside and side >= window / 2:
                found.append(resize(rgb, (window, window), (x, y, x + side, y + side)))
                labels.append(label)
        if len(found) >= most:
            break
    return found, np.array(labels, int)


def random_crop(
    picture: Picture, largest: float, window: int, size: int, rng: np.random.Generator
) -> tuple[np.ndarray, tuple[Tensor, Tensor, Tensor]]:
    """A crop at a size that windows find objects at, flipped or not, and its truth.

    Half of the crops are of any place at any scale, the others have an object of a window's size.

    Args:
        picture: with its objects.
        largest: scale that pictures are looked at; the smallest has it in half a window.
        window: pixels of the windows' sides.
        size: pixels of the crop's sides.
        rng: draws.

    Returns:
        (size, size, 3) uint8; boxes (G, 4), classes (G,) and ignored regions (I, 4), XYXY pixels of
        the crop, which they may lie outside of.
    """
    rgb, boxes = picture.rgb(), picture.boxes
    smallest = min(largest, window / 2 / min(rgb.shape[:2]))
    scale = np.exp(rng.uniform(np.log(smallest), np.log(largest)))
    around = rng.uniform(0, 1, 2) * rgb.shape[1::-1]
    if len(boxes) and rng.random() < 0.5:
        box = boxes[rng.integers(len(boxes))]
        scale = window * CORE / max(box[2:] - box[:2]) * rng.uniform(0.8, 1.25)
        around = (box[:2] + box[2:]) / 2 + rng.uniform(-0.3, 0.3, 2) * size / scale
    x, y = (around - size / scale / 2).round().astype(int)
    side = max(1, round(size / scale))
    inside = rgb[max(y, 0) : max(y + side, 0), max(x, 0) : max(x + side, 0)]
    crop = np.full((side, side, 3), GREY, np.uint8)
    top, left = max(-y, 0), max(-x, 0)
    crop[top : top + inside.shape[0], left : left + inside.shape[1]] = inside
    image = resize(crop, (size, size))
    moved = [(group - [x, y, x, y]) * size / side for group in (boxes, picture.ignored)]
    if rng.random() < 0.5:
        image = image[:, ::-1].copy()
        moved = [
            np.stack([size - x[:, 2], x[:, 1], size - x[:, 0], x[:, 3]], axis=1) for x in moved
        ]
    objects, ignored = (torch.from_numpy(x).float() for x in moved)
    return image, (objects, torch.from_numpy(picture.labels), ignored)
