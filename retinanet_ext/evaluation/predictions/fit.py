"""Whether detections belong to annotations: ids of both, and boxes in the images' sizes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from pycocotools.coco import COCO

from ...errors import InputError, count, listed

__all__ = ["check_fit"]

MANY = 0.2  # share of boxes that leave their image, from which they are not XYWH
NEARLY_ALL = 0.99  # share of boxes that must make sense as corners
BORDER = 1.0  # pixels that a box may leave its image by


def check_fit(path: str, detections: Sequence[dict[str, Any]], annotations: str, gt: COCO) -> None:
    """Check that the detections are of these images and classes, with boxes as XYWH in pixels.

    Args:
        path: of the detections.
        detections: of known types.
        annotations: path of ``gt``.
        gt: the ground truth.

    Raises:
        ValueError: they are not; says what seems to be the case.
    """
    if not detections:
        return
    _check_images(path, detections, annotations, gt)
    _check_categories(path, detections, annotations, gt)
    _check_boxes(path, detections, gt)


def _check_images(
    path: str, detections: Sequence[dict[str, Any]], annotations: str, gt: COCO
) -> None:
    used = list(dict.fromkeys(row["image_id"] for row in detections))
    unknown = [x for x in used if x not in gt.imgs]
    if not unknown:
        return
    files = [str(x.get("file_name", "")) for x in gt.imgs.values()]
    names = {*files, *(os.path.basename(x) for x in files)}
    names |= {os.path.splitext(x)[0] for x in names}
    texts = {str(x) for x in gt.imgs}
    if all(str(x) in texts for x in unknown):
        kind = "text" if isinstance(unknown[0], str) else "numbers"
        other = "numbers" if kind == "text" else "text"
        raise InputError(
            f"{path}: image ids such as {unknown[0]!r} are {kind}, and in {annotations} they are "
            f"{other}; write them alike"
        )
    if all(str(x) in names for x in unknown):
        raise InputError(
            f"{path}: image ids such as {unknown[0]!r} are file names; write the 'id' that the "
            f"image has in {annotations}"
        )
    what = f"{len(unknown)} of {count(len(used), 'image')}"
    if len(unknown) == len(used):
        raise InputError(
            f"{path}: none of its {count(len(used), 'image')} (ids {listed(unknown, 3)}) is in "
            f"{annotations}: these are detections of another set; give the annotations of the "
            "images that they were made on"
        )
    raise InputError(
        f"{path}: {what} are not in {annotations}, first ids {listed(unknown, 3)}; did you give "
        "the right annotations?"
    )


def _check_categories(
    path: str, detections: Sequence[dict[str, Any]], annotations: str, gt: COCO
) -> None:
    used = list(dict.fromkeys(row["category_id"] for row in detections))
    unknown = [x for x in used if x not in gt.cats]
    if not unknown:
        return
    ids = sorted(gt.cats)
    texts = {str(x) for x in ids}
    if all(str(x) in texts for x in unknown):
        raise InputError(
            f"{path}: category ids such as {unknown[0]!r} are of another type than {ids[0]!r} in "
            f"{annotations}; write them alike, as whole numbers"
        )
    by_name = {str(row["name"]) for row in gt.cats.values()}
    if all(str(x) in by_name for x in unknown):
        raise InputError(
            f"{path}: category ids such as {unknown[0]!r} are names of classes; write the 'id' "
            f"that the class has in {annotations}"
        )
    if all(isinstance(x, int) and 0 <= x < len(ids) for x in used):
        shift = f" (here: add {ids[0]})" if ids == list(range(ids[0], ids[0] + len(ids))) else ""
        raise InputError(
            f"{path}: category ids {min(used)} to {max(used)} look like indexes that count from 0, "
            f"and {annotations} has ids {listed(ids, 5)}; write the id of each class instead: "
            f"index 0 is id {ids[0]}{shift}"
        )
    number = sum(row["category_id"] in set(unknown) for row in detections)
    raise InputError(
        f"{path}: {number} of {count(len(detections), 'detection')} have category ids that are not "
        f"in {annotations}, first {listed(unknown, 3)} (it has {listed(ids, 5)}); did you give the "
        "right annotations?"
    )


def _check_boxes(path: str, detections: Sequence[dict[str, Any]], gt: COCO) -> None:
    boxes = np.array([row["bbox"] for row in detections], np.float64)
    images = [gt.imgs[row["image_id"]] for row in detections]
    sizes = np.array([[x["width"], x["height"]] for x in images], np.float64)
    rows = (sizes > 0).all(axis=1)
    boxes, sizes = boxes[rows], sizes[rows]
    if not len(boxes):
        return
    if boxes.max() <= 1.5 and boxes[:, 2:].max() > 0:
        raise InputError(
            f"{path}: all coordinates are below 1.5, so they seem to be fractions of the image; "
            "multiply them by its width and height to get pixels"
        )
    far = boxes[:, 2:]
    outside = (boxes[:, :2] + far > sizes + BORDER).any(axis=1)
    as_corners = (far >= boxes[:, :2]).all(axis=1) & (far <= sizes + BORDER).all(axis=1)
    if outside.mean() > MANY and as_corners.mean() > NEARLY_ALL:
        raise InputError(
            f"{path}: {outside.sum()} of {len(boxes)} boxes leave their image as [x, y, width, "
            "height], and hardly any does as [x1, y1, x2, y2], so they seem to be corners; write "
            "[x1, y1, x2 - x1, y2 - y1]"
        )
