"""What the two sliding-window detectors share: pictures, their sizes, background, merging."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from detectron2.data import detection_utils
from PIL import Image

__all__ = ["CORE", "Found", "Picture", "background", "ious", "merge", "pyramid", "resize"]

CORE = 0.64  # share of a window's side that its object has; the rest shows what is around it
MERGED = 0.4  # IoU from which two windows are about the same object
MOST_MERGED = 3000  # of the best windows of a picture
BACKGROUND = 0.3  # IoU of a window's core with every object, at most


@dataclass(frozen=True)
class Picture:
    """A picture with its objects.

    Attributes:
        file: its path.
        image_id: in the dataset.
        boxes: (G, 4), XYXY pixels.
        labels: (G,), in 0..K-1.
        ignored: (I, 4), regions that are neither object nor background.
    """

    file: str
    image_id: int | str
    boxes: np.ndarray
    labels: np.ndarray
    ignored: np.ndarray

    def rgb(self) -> np.ndarray:
        """(H, W, 3) uint8."""
        return detection_utils.read_image(self.file, "RGB")


@dataclass(frozen=True)
class Found:
    """Detections of a picture: boxes (D, 4) XYXY pixels, scores (D,) and labels (D,)."""

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray


def resize(
    rgb: np.ndarray, size: tuple[int, int], box: tuple[float, float, float, float] | None = None
) -> np.ndarray:
    """The picture, or a box of it (XYXY pixels), at a size (height, width), uint8."""
    image = Image.fromarray(rgb)
    return np.asarray(image.resize(size[::-1], Image.Resampling.BILINEAR, box))


def pyramid(
    shape: Sequence[int], window: int, factor: float, largest: float = 1.0
) -> Iterator[tuple[float, tuple[int, int]]]:
    """Scales and sizes (height, width) of a picture until it is smaller than the window.

    Args:
        shape: of the picture, height and width first.
        window: side, in pixels.
        factor: from one scale to the next, above 1.
        largest: the first scale.
    """
    scale = largest
    while min(shape[:2]) * scale >= window:
        yield scale, (int(shape[0] * scale), int(shape[1] * scale))
        scale /= factor


def largest_scale(pictures: Sequence[Picture], window: int) -> float:
    """The scale at which nearly the smallest of the objects fills the core of a window."""
    sides = [(x.boxes[:, 2:] - x.boxes[:, :2]).max(1) for x in pictures if len(x.boxes)]
    return float(window * CORE / np.quantile(np.concatenate(sides), 0.02))


def ious(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """IoU (N, M) of boxes (N, 4) and (M, 4)."""
    low, high = np.maximum(a[:, None, :2], b[:, :2]), np.minimum(a[:, None, 2:], b[:, 2:])
    common = np.clip(high - low, 0, None).prod(2)
    area_a, area_b = ((x[:, 2:] - x[:, :2]).prod(1) for x in (a, b))
    return common / np.maximum(area_a[:, None] + area_b - common, 1e-9)


def background(boxes: np.ndarray, picture: Picture) -> np.ndarray:
    """Whether each box (N, 4) is surely none of the picture's objects."""
    others = np.concatenate([picture.boxes, picture.ignored])
    return ious(boxes, others).max(1, initial=0) < BACKGROUND


def merge(found: Found) -> Found:
    """OverFeat's greedy merge: around the best window all that overlap it become one box.

    The box is their mean, weighted by score. Their scores add up, so that an object which many
    windows agree on comes before what one window says; s / (1 + s) keeps the sum s below 1. The
    class is that of most score.
    """
    order = np.argsort(-found.scores, kind="stable")[:MOST_MERGED]
    boxes, scores, labels = found.boxes[order], found.scores[order], found.labels[order]
    left, groups = np.arange(len(boxes)), []
    while len(left):
        overlap = ious(boxes[left[:1]], boxes[left])[0] >= MERGED
        groups.append(left[overlap])
        left = left[~overlap]
    votes = [np.bincount(labels[group], scores[group]) for group in groups]
    return Found(
        np.array([np.average(boxes[g], 0, scores[g]) for g in groups]).reshape(-1, 4),
        np.array([vote.max() / (1 + vote.sum()) for vote in votes]),
        np.array([vote.argmax() for vote in votes], int),
    )
