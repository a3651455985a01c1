"""Whether annotations are possible, and how many objects of each class there are."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from typing import Any

from detectron2.data import DatasetCatalog

from ...errors import InputError, listed
from .register import load_class_names

logger = logging.getLogger(__name__)


def check_dataset_dicts(
    name: str,
    dicts: Sequence[dict[str, Any]],
    num_classes: int,
    class_names: Sequence[str] | None = None,
    key: str = "MODEL.RETINANET.NUM_CLASSES",
) -> list[int]:
    """Check the annotations of a loaded dataset.

    Args:
        name: the dataset's registered name, for messages.
        dicts: Detectron2's dataset dicts; those without "annotations" are passed over.
        num_classes: ids must lie in [0, num_classes).
        class_names: names of the classes, for messages.
        key: that holds ``num_classes``, for messages.

    Returns:
        Number of objects of each class, crowds left out; ``num_classes`` long.

    Raises:
        ValueError: a category_id is out of range or no integer, or a bbox is not made of four
            finite numbers; names dataset, image file, the value and what to change.
    """
    counts = [0] * num_classes
    for record in dicts:
        for annotation in record.get("annotations", ()):
            category = annotation.get("category_id")
            if not _is_class_id(category, num_classes):
                raise _bad_category(name, record, category, num_classes, class_names, key)
            counts[category] += not (annotation.get("iscrowd", 0) or annotation.get("ignore", 0))
            if not _is_finite_box(annotation.get("bbox")):
                raise InputError(
                    f"dataset '{name}', image {_image_of(record)}: bbox is "
                    f"{annotation.get('bbox')}, but must be four finite numbers; correct or "
                    "remove this annotation"
                )
    return counts


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


def _is_class_id(category: Any, num_classes: int) -> bool:
    # bool is an int to Python; a numpy integer is fine too.
    if isinstance(category, bool) or not hasattr(category, "__index__"):
        return False
    return 0 <= category < num_classes


def _is_finite_box(box: Any) -> bool:
    try:
        # A sum is finite only if all are; one test instead of four.
        return len(box) == 4 and math.isfinite(sum(box))
    except (TypeError, ValueError, OverflowError):
        return False


def _bad_category(
    name: str,
    record: dict[str, Any],
    category: Any,
    num_classes: int,
    class_names: Sequence[str] | None,
    key: str,
) -> InputError:
    known = f" ({listed(class_names)})" if class_names else ""
    return InputError(
        f"dataset '{name}', image {_image_of(record)}: category_id is {category!r}, but must be an "
        f"integer from 0 to {num_classes - 1}{known}; correct the annotation, map the ids to a "
        f"range without gaps from 0, or set {key} to the number of classes"
    )


def _image_of(record: dict[str, Any]) -> str:
    return f"{record.get('file_name', record.get('image_id', '?'))}"
