"""The pictures of a report, drawn from what was found to be wrong in them."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from .compute.subject import Subject, shown_file
from .page.html import esc
from .page.sections.pictures import Shown
from .pictures import Boxes, draw_picture

__all__ = ["draw_labels_missing", "draw_worst", "fitting"]

logger = logging.getLogger(__name__)

MOST_TEXTS = 30  # boxes with a text on one picture; more hide it
UNREADABLE = (OSError, ValueError, SyntaxError, MemoryError)
"""What Pillow raises for a picture; such a picture is left out of the page."""


def draw_worst(
    subject: Subject, rows: Sequence[Mapping[str, Any]], sixteen_bit: str = ""
) -> list[Shown]:
    """The pictures with the most mistakes.

    Args:
        subject: has the pictures.
        rows: of the report's ``worst``.
        sixteen_bit: ``INPUT.SIXTEEN_BIT``.
    """
    return list(_drawn(subject, rows, _worst_line, sixteen_bit))


def draw_labels_missing(
    subject: Subject, rows: Sequence[Mapping[str, Any]], sixteen_bit: str = ""
) -> list[Shown]:
    """The pictures with sure detections of nothing; for the arguments see :func:`draw_worst`."""
    return list(_drawn(subject, rows, _label_line, sixteen_bit))


def fitting(size: int, limit: float, *galleries: list[Shown]) -> list[list[Shown]]:
    """The galleries without as many of their last pictures as the page is too large.

    Args:
        size: of the page without pictures, in bytes.
        limit: of the page, in bytes.
        galleries: the longest one loses its last picture first.
    """
    kept = [list(x) for x in galleries]
    size += sum(len(shown.uri) for x in kept for shown in x)
    while size > limit and any(kept):
        size -= len(max(kept, key=len).pop().uri)
    return kept


def _drawn(
    subject: Subject, rows: Sequence[Mapping[str, Any]], line: Any, sixteen_bit: str
) -> Iterator[Shown]:
    for row in rows:
        path = subject.files.get(row["image_id"])
        if path is None:
            continue
        try:
            uri = draw_picture(path, _layers(row["boxes"]), sixteen_bit)
        except UNREADABLE as error:
            logger.info("%s is not shown: %s", path, error)
            continue
        yield Shown(uri, shown_file(subject, row["image_id"]), line(row))


def _layers(boxes: Sequence[Mapping[str, Any]]) -> list[Boxes]:
    """What is right below what is wrong, and what is missed on top, where much is wrong."""
    layers = []
    for kind in ("found", "false", "missed"):
        mine = [box for box in boxes if box["kind"] == kind]
        quiet = kind == "found" or len(boxes) - len(mine) > MOST_TEXTS or len(mine) > MOST_TEXTS
        texts = ["" if quiet else _text(box) for box in mine]
        xywh = np.array([box["box"] for box in mine], np.float64).reshape(-1, 4)
        corners = np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1)
        layers.append(Boxes(kind, corners, texts))
    return layers


def _text(box: Mapping[str, Any]) -> str:
    score = "" if box["score"] is None else f" {box['score']:.2f}"
    return f"{str(box['class'])[:24]}{score}"


def _worst_line(row: Mapping[str, Any]) -> str:
    return esc(f"{row['false']} wrong, {row['missed']} missed")


def _label_line(row: Mapping[str, Any]) -> str:
    return esc(", ".join(_text(box) for box in row["boxes"] if box["kind"] == "false"))
