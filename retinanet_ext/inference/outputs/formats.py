"""Other formats of a whole run, written from its lines in memory that does not grow."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import compress
from typing import Any, TextIO

from ...files import written_whole
from ..score_thresh import ScoreThresh, reaches
from .coco_ids import CocoIds
from .folder import ResultsFolder
from .lines import read_lines

__all__ = ["FORMATS", "write_formats"]

FORMATS = ("jsonl", "json", "csv", "coco", "yolo")
"""What there is; jsonl is always written, and yolo as the pictures are done."""

COLUMNS = (
    *("file", "frame", "time_s", "width", "height"),
    *("class", "class_id", "score", "x1", "y1", "x2", "y2"),
)


def write_formats(
    folder: ResultsFolder, formats: Iterable[str], ids: CocoIds, score_thresh: ScoreThresh
) -> list[str]:
    """Write the files and return their paths.

    Args:
        folder: its lines are read.
        formats: of :data:`FORMATS`.
        ids: for coco.
        score_thresh: detections have at least this score, of all classes or of each, (K,).
    """
    written = []
    for name in formats:
        if name == "csv":
            written.append(folder.file("predictions.csv"))
            _write_csv(written[-1], _records(folder, score_thresh))
        elif name == "json":
            written.append(folder.file("predictions.json"))
            with _text(written[-1]) as file:
                _write_array(file, _records(folder, score_thresh))
        elif name == "coco":
            written.append(folder.file("coco_instances_results.json"))
            _write_coco(folder, written[-1], ids, score_thresh)
    return written


def _records(folder: ResultsFolder, score_thresh: ScoreThresh) -> Iterator[dict[str, Any]]:
    for record in read_lines(folder.predictions):
        found = record["detections"]
        scores, classes = ([x[name] for x in found] for name in ("score", "class_id"))
        kept = list(compress(found, reaches(scores, classes, score_thresh)))
        yield {**record, "detections": kept}


def _write_csv(path: str, records: Iterable[dict[str, Any]]) -> None:
    with _text(path) as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for record in records:
            start = [record[name] for name in COLUMNS[:5]]
            for found in record["detections"]:
                values = found["class"], found["class_id"], found["score"], *found["box"]
                writer.writerow([*start, *values])
            if not record["detections"]:
                writer.writerow([*start, *[""] * 7])


def _write_coco(folder: ResultsFolder, path: str, ids: CocoIds, score_thresh: ScoreThresh) -> None:
    def images() -> Iterator[dict[str, Any]]:
        for number, record in enumerate(read_lines(folder.predictions), start=1):
            image_id = ids.image_id(record["file"], number)
            if image_id is not None:
                frame = {} if record["frame"] is None else {"frame": record["frame"]}
                size = {name: record[name] for name in ("width", "height")}
                yield {"id": image_id, "file_name": record["file"], **frame, **size}

    def results() -> Iterator[dict[str, Any]]:
        for number, record in enumerate(_records(folder, score_thresh), start=1):
            image_id = ids.image_id(record["file"], number)
            if image_id is None:
                continue
            for found in record["detections"]:
                x1, y1, x2, y2 = found["box"]
                yield {
                    "image_id": image_id,
                    "category_id": ids.category_ids[found["class_id"]],
                    "bbox": [x1, y1, round(x2 - x1, 3), round(y2 - y1, 3)],
                    "score": found["score"],
                    **{name: found[name] for name in ("segmentation",) if name in found},
                }

    with _text(path) as file:
        _write_array(file, results())
    ids.unknown = 0
    with _text(folder.file("coco_images.json")) as file:
        file.write(f'{{"categories": {json.dumps(ids.categories)},\n"images": ')
        _write_array(file, images())
        file.write("}\n")


def _write_array(file: TextIO, items: Iterable[Any]) -> None:
    separator = "["
    for item in items:
        file.write(f"{separator}{json.dumps(item)}")
        separator = ",\n"
    file.write("[]\n" if separator == "[" else "]\n")


@contextmanager
def _text(path: str) -> Iterator[TextIO]:
    """A text file that is there when it is complete; file names may hold any byte."""
    with (
        written_whole(path) as new,
        open(new, "w", encoding="utf-8", errors="surrogateescape", newline="") as file,
    ):
        yield file
