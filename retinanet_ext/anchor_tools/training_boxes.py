"""The objects of a training set as the network sees them: resized, or augmented."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..data.doctor import DatasetTable, InputSize
from ..data.doctor.boxes import usable_boxes
from ..errors import InputError
from ..random_state import random_state_kept

__all__ = ["TrainingBoxes", "resized_boxes", "sampled_boxes"]


@dataclass(frozen=True, eq=False)
class TrainingBoxes:
    """n boxes in V views; a view is an image as the network sees it once.

    Attributes:
        boxes: (n, 4) float64, absolute XYXY in pixels of the view, with area.
        view_of: (n,) int64 in [0, V), rising.
        sizes: (V, 2) int64, width and height of each view, padded.
        classes: (n,) int64 index into ``class_names``.
        class_names: of the training set.
        rows: (n,) int64, the row of each box in its table; -1 after augmentation.
    """

    boxes: np.ndarray
    view_of: np.ndarray
    sizes: np.ndarray
    classes: np.ndarray
    class_names: list[str]
    rows: np.ndarray

    @property
    def sizes_of_boxes(self) -> np.ndarray:
        """(n, 2) padded width and height of each box's view."""
        return self.sizes[self.view_of]


def resized_boxes(
    table: DatasetTable, shorts: Sequence[float], long: float, divisor: int = 32
) -> TrainingBoxes:
    """Each image once per size, as Detectron2's ``ResizeShortestEdge`` resizes it.

    Args:
        table: crowds and boxes without area are left out, and images of unknown size.
        shorts: the shorter side, in pixels, one view for each; 0 leaves images as they are.
        long: the largest longer side, in pixels.
        divisor: views are padded to multiples of it.

    Raises:
        ValueError: no box is left.
    """
    rows, images, view_of_image = _objects(table)
    old = table.sizes[images]
    new = [_resized_sizes(old, short, long) for short in shorts]
    one_size = [table.xyxy[rows] * np.tile((x / old)[view_of_image], 2) for x in new]
    return TrainingBoxes(
        boxes=np.concatenate(one_size),
        view_of=np.concatenate([view_of_image + i * len(images) for i in range(len(shorts))]),
        sizes=_padded(np.concatenate(new), divisor),
        classes=np.tile(table.class_of[rows], len(shorts)),
        class_names=table.class_names,
        rows=np.tile(rows, len(shorts)),
    )


def sampled_boxes(
    records: Sequence[dict[str, Any]],
    class_names: Sequence[str],
    mapper: Callable[[dict[str, Any]], dict[str, Any]],
    num_samples: int,
    seed: int = 0,
    divisor: int = 32,
) -> TrainingBoxes:
    """Images drawn at random, as training's mapper loads and augments them.

    Args:
        records: Detectron2's dataset dicts; those without objects are not drawn.
        class_names: of the training set.
        mapper: training's, which gives "image" (3, H, W) and "instances".
        num_samples: views to draw, with replacement.
        seed: of the draw and of the augmentations (NumPy's and Python's global generators, which
            are put back afterwards).
        divisor: views are padded to multiples of it.

    Raises:
        ValueError: no box is left.
        OSError: an image cannot be read.
    """
    with_objects = [x for x in records if x.get("annotations")]
    if not with_objects:
        raise InputError("the training set has no objects")
    samples = []
    with random_state_kept():
        random.seed(seed)
        np.random.seed(seed)
        for i in np.random.randint(len(with_objects), size=num_samples).tolist():
            samples.append(_sample(mapper(with_objects[i])))
    boxes, classes, sizes = zip(*samples, strict=True)
    counts = [len(x) for x in boxes]
    if not sum(counts):
        raise InputError(f"the augmentations leave no object in {num_samples} samples")
    return TrainingBoxes(
        boxes=np.concatenate(boxes),
        view_of=np.repeat(np.arange(num_samples), counts),
        sizes=_padded(np.array(sizes), divisor),
        classes=np.concatenate(classes),
        class_names=list(class_names),
        rows=np.full(sum(counts), -1),
    )


def _sample(mapped: dict[str, Any]) -> tuple[np.ndarray, np.ndarray, tuple[int, int]]:
    """Boxes, classes, and width and height of what a mapper gives; its pixels are let go."""
    height, width = mapped["image"].shape[-2:]
    gt = mapped["instances"]
    return gt.gt_boxes.tensor.double().numpy(), gt.gt_classes.numpy(), (width, height)


def _objects(table: DatasetTable) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows of objects (n,), images that have some (I,), and the place of each row's image (n,)."""
    known = np.isfinite(table.image_sizes_of_boxes).all(axis=1)
    rows = np.flatnonzero(usable_boxes(table) & known)
    if not len(rows):
        raise InputError(
            f"dataset '{table.name}' has no objects: no box with area in an image of known size"
        )
    rows = rows[np.argsort(table.image_of[rows], kind="stable")]
    images, place = np.unique(table.image_of[rows], return_inverse=True)
    return rows, images, place


def _resized_sizes(sizes: np.ndarray, short: float, long: float) -> np.ndarray:
    """(I, 2) whole sizes after ``ResizeShortestEdge``."""
    if not short:
        return sizes
    return np.floor(sizes * InputSize(short, long).scales(sizes)[:, None] + 0.5)


def _padded(sizes: np.ndarray, divisor: int) -> np.ndarray:
    return (np.ceil(sizes / divisor) * divisor).astype(np.int64)
