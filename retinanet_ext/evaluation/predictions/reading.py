"""A file of COCO results: read whole, or refused with what is wrong in it and the fix."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from functools import partial
from operator import itemgetter
from typing import Any

from ...data.formats.plain_text import read_json
from ...errors import InputError, count
from ...untrusted import check_regular
from ..ground_truth import is_number

__all__ = ["is_box", "is_id", "load_json", "read_predictions"]

EXAMPLE = '[{"image_id": 1, "category_id": 2, "bbox": [x, y, width, height], "score": 0.9}, ...]'
FIELDS = ("image_id", "category_id", "bbox", "score")
PERCENT = 100.0


def read_predictions(path: str) -> list[dict[str, Any]]:
    """The detections of a json file, every field of which has been looked at.

    Raises:
        ValueError: it is no list of COCO results; names file, field, how many entries are wrong,
            and the first of them.
        OSError: it cannot be read.
    """
    content = load_json(path)
    if isinstance(content, dict):
        lists = [key for key, value in content.items() if isinstance(value, list)]
        if "images" in content or "categories" in content:
            raise InputError(
                f"{path} holds annotations, not detections; a file of detections is a list: "
                f"{EXAMPLE}"
            )
        hint = f"; write only what stands under '{lists[0]}'" if lists else ""
        raise InputError(f"{path} holds an object, but must be a list {EXAMPLE}{hint}")
    if not isinstance(content, list):
        raise InputError(f"{path} holds {content!r:.40}, but must be a list {EXAMPLE}")
    for check in (_objects, _fields, _ids, _boxes, _scores):
        check(path, content)
    return content


def load_json(path: str) -> Any:
    """The content of a json file, or a sentence for the usual ways in which it is none.

    Raises:
        ValueError, OSError: it cannot be read.
    """
    check_regular(path)
    try:
        return read_json(path)
    except InputError as error:
        cause = error.__cause__
        if not isinstance(cause, json.JSONDecodeError):
            raise
        text = cause.doc.strip()
        if not text:
            raise InputError(f"{path} is empty; write the file again") from None
        if cause.msg == "Extra data" and text.startswith(("{", "[")):
            raise InputError(
                f"{path} has one json object on each line (JSON lines); write them as one list: "
                f"jq -s . '{path}' > list.json"
            ) from None
        if cause.pos >= len(cause.doc.rstrip()) or cause.msg.startswith("Unterminated"):
            raise InputError(
                f"{path} ends in the middle of its json (line {cause.lineno}): it was not written "
                "to its end; write it again"
            ) from None
        raise


def is_id(value: object) -> bool:
    """Whether it can be the id of an image or a category."""
    return isinstance(value, int | str) and not isinstance(value, bool)


def is_box(value: object) -> bool:
    """Whether it is a list of four finite numbers."""
    return isinstance(value, list) and len(value) == 4 and all(map(is_number, value))


def _refuse(
    path: str,
    rows: list[Any],
    is_wrong: Callable[[Any], bool],
    problem: str,
    fix: str,
    shown: Callable[[Any], Any] = lambda row: row,
) -> None:
    """Raise InputError with the number of wrong rows and the first of them, if there is any."""
    wrong = [i for i, row in enumerate(rows) if is_wrong(row)]
    if not wrong:
        return
    total = count(len(rows), "detection")
    if len(wrong) == 1:
        problem = problem.replace("have ", "has ", 1).replace("are no objects", "is no object")
    example = f"{shown(rows[wrong[0]])!r:.80}"
    raise InputError(
        f"{path}: {len(wrong)} of {total} {problem}; the first is entry {wrong[0]} with {example}: "
        f"{fix}"
    )


def _objects(path: str, rows: list[Any]) -> None:
    fix = f"write each as an object, {EXAMPLE}"
    _refuse(path, rows, lambda row: not isinstance(row, dict), "are no objects", fix)


def _fields(path: str, rows: list[Any]) -> None:
    if rows and all("segmentation" in row and "bbox" not in row for row in rows):
        raise InputError(
            f"{path} holds masks ('segmentation') without boxes, and only boxes are evaluated; add "
            "a 'bbox' to each entry"
        )
    for name in FIELDS:
        fix = f"add '{name}' to each entry, as in {EXAMPLE}"
        _refuse(path, rows, partial(_lacks, name), f"have no '{name}'", fix, list)


def _lacks(name: str, row: dict[str, Any]) -> bool:
    return name not in row


def _ids(path: str, rows: list[Any]) -> None:
    for name in ("image_id", "category_id"):
        _refuse(
            path,
            rows,
            partial(_has_no_id, name),
            f"have no usable '{name}'",
            "write the id that the annotations have, a whole number",
            itemgetter(name),
        )
    for row in rows:
        for name in ("image_id", "category_id"):
            if isinstance(row[name], float):
                row[name] = int(row[name])


def _has_no_id(name: str, row: dict[str, Any]) -> bool:
    value = row[name]
    return not (is_id(value) or (isinstance(value, float) and value.is_integer()))


def _boxes(path: str, rows: list[Any]) -> None:
    of = itemgetter("bbox")

    def is_infinite(row: Any) -> bool:
        box = row["bbox"]
        if not isinstance(box, list):
            return False
        return any(isinstance(x, float) and not math.isfinite(x) for x in box)

    fix = "leave such detections out, and look why the detector gives them"
    _refuse(path, rows, is_infinite, "have NaN or infinity in their bbox", fix, of)
    fix = "write [x, y, width, height] in pixels, four numbers"
    _refuse(path, rows, lambda row: not is_box(row["bbox"]), "have no usable bbox", fix, of)
    fix = "write [x, y, width, height], where x and y are the left upper corner"
    _refuse(
        path, rows, lambda r: min(r["bbox"][2:]) < 0, "have a negative width or height", fix, of
    )


def _scores(path: str, rows: list[Any]) -> None:
    of = itemgetter("score")
    _refuse(
        path,
        rows,
        lambda row: isinstance(row["score"], str),
        "have a score that is text",
        "write it as a number, without quotes",
        of,
    )
    _refuse(
        path,
        rows,
        lambda row: not is_number(row["score"]),
        "have a score that is NaN or no number",
        "write a number between 0 and 1, or leave such detections out",
        of,
    )
    scores = [row["score"] for row in rows]
    fix = "write probabilities between 0 and 1"
    if scores and min(scores) >= 0 and 1 < max(scores) <= PERCENT:
        fix = "they look like percent, so divide them by 100"
    elif scores and min(scores) < 0:
        fix = "they look like logits, so put them through a sigmoid"
    _refuse(
        path,
        rows,
        lambda row: not 0 <= row["score"] <= 1,
        "have a score outside of [0, 1]",
        fix,
        of,
    )
