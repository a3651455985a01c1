"""What can be wrong with a dataset, and where it was found to be."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from .table import DatasetTable

__all__ = ["CODES", "Change", "Fault", "Finding", "list_findings"]

Severity = Literal["error", "warning"]

# Code of each fault -> its severity and what it means. An error spoils a training or its metrics;
# a warning is to be looked at.
CODES: dict[str, tuple[Severity, str]] = {
    "refused": ("error", "training refuses the dataset"),
    "no_images": ("error", "none of the images was found"),
    "missing_image": ("error", "no file for an image of the list"),
    "unreadable_image": ("error", "the file is no image that can be decoded"),
    "truncated_image": ("error", "the end of the image file is missing"),
    "deep_pixels": ("error", "pixels of more than 8 bits without a rule to scale them"),
    "wrong_size": ("error", "recorded width and height are not the file's"),
    "missing_size": ("error", "no width or height recorded"),
    "exif_rotation": ("error", "boxes were drawn before the rotation in the file's EXIF tag"),
    "exif_unsure": ("warning", "an EXIF orientation that leaves the size as it is"),
    "box_malformed": ("error", "a bbox is not four numbers"),
    "box_as_text": ("warning", "numbers of a bbox are written as texts"),
    "wrong_flag": ("error", "iscrowd or ignore is neither 0 nor 1"),
    "box_not_finite": ("error", "NaN or infinity in a bbox"),
    "box_inverted": ("error", "x2 < x1 or y2 < y1"),
    "box_no_area": ("error", "width or height is 0"),
    "box_normalised": ("error", "0..1 where pixels are expected"),
    "box_looks_xyxy": ("error", "corners where x, y, width, height are expected"),
    "box_outside": ("error", "wholly outside of its image"),
    "box_over_border": ("warning", "partly outside of its image"),
    "duplicate_box": ("warning", "the same box and class twice in an image"),
    "duplicate_image": ("warning", "the same image twice in a dataset"),
    "duplicate_image_id": ("error", "an image id used twice"),
    "duplicate_annotation_id": ("error", "an annotation id used twice"),
    "duplicate_category": ("error", "a category id or name used twice"),
    "missing_id": ("error", "an image or annotation without id, or an image without file name"),
    "annotation_id_zero": ("warning", "COCO's evaluation takes a match with id 0 for none"),
    "unknown_category": ("error", "a category that the dataset does not have"),
    "unknown_image": ("error", "an annotation of an image that the dataset does not have"),
    "reader_warning": ("warning", "training leaves something out, or doubts what is meant"),
    "no_objects": ("error", "no usable object in the dataset"),
    "empty_class": ("warning", "a class without objects"),
    "imbalance": ("warning", "some classes have many times the objects of others"),
    "uncovered_objects": ("warning", "many objects that no anchor covers"),
    "leakage": ("error", "an image of the training set is in the validation set"),
    "different_classes": ("error", "training and validation set have different classes"),
}


@dataclass(frozen=True)
class Change:
    """One correction: the fault's code, the image or annotation file, the id, and what was done."""

    code: str
    file: str
    annotation_id: Any
    change: str


@dataclass(frozen=True)
class Finding:
    """One fault at one place.

    Attributes:
        severity: "error" or "warning".
        code: a key of ``CODES``.
        dataset: its name.
        file: the image, or the annotation file where no image is concerned.
        annotation_id: as recorded; None where no annotation is concerned, or it has none.
        message: what is wrong, with values.
    """

    severity: Severity
    code: str
    dataset: str
    file: str
    annotation_id: Any
    message: str


@dataclass(frozen=True, eq=False)
class Fault:
    """All places of one kind of fault in one dataset; messages are made when they are needed.

    Attributes:
        code: a key of ``CODES``.
        of: what ``rows`` counts: boxes or images of the table, or nothing ("dataset").
        rows: (F,) int64.
        message: text for one of the rows.
    """

    code: str
    of: Literal["box", "image", "dataset"]
    rows: np.ndarray
    message: Callable[[int], str]

    @classmethod
    def where(
        cls,
        code: str,
        of: Literal["box", "image", "dataset"],
        mask: np.ndarray,
        message: Callable[[int], str],
    ) -> Fault:
        """The fault at the rows where ``mask`` (bool) holds."""
        return cls(code, of, np.flatnonzero(mask), message)

    @classmethod
    def of_dataset(cls, code: str, message: str) -> Fault:
        return cls(code, "dataset", np.zeros(1, dtype=np.int64), lambda _: message)


def list_findings(table: DatasetTable, faults: Iterable[Fault], limit: int) -> list[Finding]:
    """The first ``limit`` places of each fault."""
    findings = []
    for fault in faults:
        severity = CODES[fault.code][0]
        for row in fault.rows[:limit].tolist():
            file, annotation_id = table.source, None
            if fault.of == "box":
                file = table.file_of_box(row) or table.source
                annotation_id = table.annotation_ids[row]
            elif fault.of == "image":
                file = table.files[row] or table.source
            message = fault.message(row)
            findings.append(Finding(severity, fault.code, table.name, file, annotation_id, message))
    return findings
