"""Refuse ground truth that would train a wrong or broken model without a word."""

from __future__ import annotations

from typing import Any

from ..errors import InputError


def check_training_inputs(
    batched_inputs: list[dict[str, Any]],
    num_classes: int,
    section: str = "MODEL.RETINANET",
) -> None:
    """Check one batch before it reaches the device; costs microseconds for byte images.

    Args:
        batched_inputs: dicts with ``image`` (C, H, W) and ``instances`` that hold ``gt_boxes`` and
            ``gt_classes``; ``file_name``, ``image_id`` and ``dataset_name`` are named in errors.
        num_classes: K; classes must be in [0, K).
        section: of the config, that holds NUM_CLASSES, for messages.

    Raises:
        ValueError: names the image, the value and the fix.
    """
    for inputs in batched_inputs:
        if "instances" not in inputs:
            raise InputError(
                f"{_where(inputs)} has no 'instances' to train on; use a training data loader, or "
                "model.eval() to detect"
            )
        _check_classes(inputs, num_classes, section)
        _check_finite(inputs)


def _check_classes(inputs: dict[str, Any], num_classes: int, section: str) -> None:
    classes = inputs["instances"].gt_classes
    wrong = classes[(classes < 0) | (classes >= num_classes)]
    if len(wrong):
        raise InputError(
            f"{_where(inputs)} has an object of class {int(wrong[0])}, but "
            f"{section}.NUM_CLASSES is {num_classes}, so classes must be in "
            f"[0, {num_classes - 1}]; set it to the number of classes of your dataset"
        )


def _check_finite(inputs: dict[str, Any]) -> None:
    boxes = inputs["instances"].gt_boxes.tensor
    finite = boxes.isfinite().all(dim=1)
    if not bool(finite.all()):
        raise InputError(
            f"{_where(inputs)} has the box {boxes[~finite][0].tolist()}, which is not finite; "
            "remove or correct it in the annotations"
        )
    image = inputs["image"]
    if image.is_floating_point() and not bool(image.isfinite().all()):
        raise InputError(
            f"{_where(inputs)} has NaN or infinite pixels; look at the file or at the transform "
            "that makes it"
        )


def _where(inputs: dict[str, Any]) -> str:
    image = inputs.get("file_name") or f"image {inputs.get('image_id', 'without file_name')}"
    dataset = inputs.get("dataset_name")
    return f"{image} of dataset '{dataset}'" if dataset else str(image)
