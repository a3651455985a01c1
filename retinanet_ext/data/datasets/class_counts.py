"""How many objects of each class there are to train on."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from detectron2.data import DatasetCatalog

from ...errors import InputError
from .check import check_dataset_dicts
from .register import load_class_names

logger = logging.getLogger(__name__)


def count_classes(
    dataset_names: Sequence[str], num_classes: int, images: bool = False
) -> list[int]:
    """Objects of each class in the annotations of datasets, crowds left out, or images with some.

    Every annotation counts, whatever the training loader leaves out or repeats. Classes without
    objects are logged.

    Args:
        dataset_names: registered names; one that is named twice counts twice, as it trains twice.
        num_classes: K.
        images: count the images that hold an object of the class, not the objects.

    Returns:
        K numbers, in the order of the classes.

    Raises:
        ValueError: no dataset has any object, or an annotation is impossible, see
            :func:`retinanet_ext.data.check_dataset_dicts`.
        KeyError: a dataset is not registered.
    """
    counts = [0] * num_classes
    class_names: Sequence[str] | None = None
    for name in dataset_names:
        dicts = DatasetCatalog.get(name)
        class_names = load_class_names(name) or class_names
        of_dataset = check_dataset_dicts(name, dicts, num_classes, class_names)
        if images:
            of_dataset = _images_with(dicts, num_classes)
        counts = [a + b for a, b in zip(counts, of_dataset, strict=True)]
    datasets = ", ".join(f"'{name}'" for name in dataset_names)
    if not any(counts):
        raise InputError(
            f"no object to count in dataset(s) {datasets}: no annotations, or crowds only"
        )
    labels = class_names if class_names and len(class_names) == num_classes else range(num_classes)
    absent = [str(label) for label, n in zip(labels, counts, strict=True) if n == 0]
    if absent:
        logger.warning("No object in %s of the class(es) %s.", datasets, ", ".join(absent))
    return counts


def _images_with(dicts: Sequence[dict[str, Any]], num_classes: int) -> list[int]:
    """Images with an object of each class, crowds and ignored ones left out."""
    counts = [0] * num_classes
    for record in dicts:
        objects = record.get("annotations", ())
        for k in {
            x["category_id"] for x in objects if not (x.get("iscrowd", 0) or x.get("ignore", 0))
        }:
            counts[k] += 1
    return counts
