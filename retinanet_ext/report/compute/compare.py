"""Two sets of detections of the same images: which is better, and whether that may be chance."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from pycocotools.coco import COCO

from ...errors import InputError, count, listed
from ...evaluation.analysis.bootstrap import bootstrap_difference
from ...evaluation.predictions.evaluate import evaluate_detections
from .subject import Subject

__all__ = ["Other", "compare", "restrict"]


@dataclass(frozen=True)
class Other:
    """What a set of detections is compared with.

    Attributes:
        name: for the page.
        detections: COCO results, maybe of further images.
        images: image id -> file name of the images that were evaluated; None where they are taken
            to be the same.
    """

    name: str
    detections: list[dict[str, Any]]
    images: Mapping[Any, str] | None = None


def compare(
    subject: Subject,
    other: Other,
    iou: float,
    max_dets: int,
    draws: int,
    seed: int,
    intersect: bool = False,
) -> dict[str, Any]:
    """How much better the subject is than the other.

    Args:
        subject: has ground truth of both.
        other: detections to compare with.
        iou, max_dets: of the evaluation.
        draws, seed: of the bootstrap, which takes the same images of both.
        intersect: look only at the images that both have.

    Raises:
        ValueError: they are of different images, and ``intersect`` is not set, or share none.
    """
    shared = _shared_images(subject, other, intersect)
    coco_gt = subject.coco_gt
    if len(shared) < len(coco_gt.imgs):
        coco_gt = restrict(coco_gt, shared)
    found = []
    for detections in (subject.detections, other.detections):
        kept = [row for row in detections if row["image_id"] in shared]
        found.append(evaluate_detections(coco_gt, kept, subject.names, iou, max_dets).analysis)
    ours, others = found
    content: dict[str, Any] = {
        "with": other.name,
        "images": len(shared),
        "draws": draws,
        "this": dict(ours.summary),
        "other": dict(others.summary),
        "classes": {
            row.name: {"this": row.AP, "other": before.AP, "n": row.num_objects}
            for row, before in zip(ours.classes, others.classes, strict=True)
            if row.num_objects
        },
        "errors": {
            kind: {"this": ours.errors.gain[kind], "other": others.errors.gain[kind]}
            for kind in ours.errors.gain
        },
    }
    if draws >= 2:
        intervals = bootstrap_difference(
            others.assignment.tables, ours.assignment.tables, max_dets, draws, seed
        )
        for name, interval in intervals.items():
            content[name] = {
                "delta": interval.value,
                "low": interval.low,
                "high": interval.high,
                "std_err": interval.std_err,
                "share_above_zero": interval.above_zero,
            }
    return content


def _shared_images(subject: Subject, other: Other, intersect: bool) -> set[Any]:
    """Ids of the images that both were evaluated on.

    Raises:
        ValueError: see :func:`compare`.
    """
    ours = {
        i: os.path.basename(str(x.get("file_name", ""))) for i, x in subject.coco_gt.imgs.items()
    }
    found = {row["image_id"] for row in other.detections}
    if other.images is None:
        shared, only_there = set(ours), found - set(ours)
    else:
        theirs = {i: os.path.basename(name) for i, name in other.images.items()}
        shared = {i for i in ours if i in theirs and _same(ours[i], theirs[i])}
        only_there = set(theirs) - shared
    only_here = set(ours) - shared
    if not shared or (only_there and not found & shared and found):
        raise InputError(
            f"--compare {other.name} and {subject.called[1]} have no image in common, so there is "
            "nothing to compare"
        )
    if (only_here or only_there) and not intersect:
        sides = (("there", only_there), ("here", only_here))
        parts = [f"{_images(ids)} only {where}" for where, ids in sides if ids]
        raise InputError(
            f"--compare {other.name} was evaluated on other images than {subject.called[1]}: "
            f"{' and '.join(parts)}; evaluate both on one set, or add --intersect to compare the "
            "images that both have"
        )
    return shared


def _same(name: str, other: str) -> bool:
    """Whether two file names can be of one picture; an unknown one can be of any."""
    return not name or not other or name == other


def restrict(coco_gt: COCO, image_ids: Collection[Any]) -> COCO:
    """The ground truth of some of the images."""
    dataset = coco_gt.dataset
    part = COCO()
    part.dataset = {
        **dataset,
        "images": [row for row in dataset["images"] if row["id"] in image_ids],
        "annotations": [row for row in dataset["annotations"] if row["image_id"] in image_ids],
    }
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints
        part.createIndex()
    return part


def _images(ids: Collection[Any]) -> str:
    shown = sorted(ids, key=lambda x: (str(type(x)), x))
    return f"{count(len(ids), 'image')} ({listed(shown, 3)})"
