"""The analyses of detections as text for a console."""

from __future__ import annotations

import math
from collections.abc import Sequence

from tabulate import tabulate

from ...errors import count
from ..analysis.classes import FEW, ClassRow
from ..analysis.error_split import KINDS
from ..analysis.results import Analysis
from ..metrics import overall_table

__all__ = ["as_text"]

MOST_ROWS = 40  # of the table of classes
MOST_LETTERS = 40  # of a name
MOST_PAIRS = 5
HEADERS = ("class", "objects", "AP", "AP50", "AP75", "score from", "precision", "recall", "F1")


def as_text(analysis: Analysis, remarks: Sequence[str] = ()) -> str:
    """Tables and sentences; nothing in them but printable characters and ends of lines.

    Args:
        analysis: of the detections.
        remarks: sentences for the end.
    """
    tables = analysis.assignment.tables
    iou = analysis.assignment.iou
    parts = [
        f"{count(len(tables.image_ids), 'image')}, {count(int(tables.num_objects.sum()), 'object')}"
        f", {count(len(tables.detections.score), 'detection')}, in percent:",
        overall_table(analysis.summary, tables.num_classes),
        _class_table(analysis.classes, iou),
        _errors(analysis),
        _confusion(analysis),
        _calibration(analysis),
        *map(_printable, remarks),
    ]
    return "\n\n".join(x for x in parts if x)


def _class_table(rows: Sequence[ClassRow], iou: float) -> str:
    shown, left_out = list(rows), 0
    if len(rows) > MOST_ROWS:
        with_objects = [row for row in rows if row.num_objects]
        shown = sorted(with_objects, key=lambda row: row.AP)[:MOST_ROWS]
        left_out = len(rows) - len(shown)
    cells = [
        [
            _short(row.name),
            str(row.num_objects),
            *(_points(x) for x in (row.AP, row.AP50, row.AP75)),
            f"{row.threshold:.3f}{'?' if row.uncertain else ''}",
            *(_points(100 * x) for x in (row.precision, row.recall, row.f1)),
        ]
        for row in shown
    ]
    align = ("left", *("right",) * (len(HEADERS) - 1))
    table = tabulate(
        cells, headers=HEADERS, tablefmt="simple", disable_numparse=True, colalign=align
    )
    notes = [
        f"(precision, recall and F1 at IoU {iou:g}, of detections from the score of the highest F1)"
    ]
    if any(row.uncertain for row in shown):
        notes.append(f"(?: uncertain, fewer than {FEW} objects)")
    if left_out:
        notes.append(f"(the {len(shown)} classes of lowest AP; {left_out} others are in --json)")
    return "\n".join([table, "", *notes])


def _errors(analysis: Analysis) -> str:
    errors, iou = analysis.errors, analysis.assignment.iou
    cells = [
        [name, f"{errors.gain[name]:.2f}", str(errors.count[name]), MEANING[name]] for name in KINDS
    ]
    cells += [[name, f"{errors.gain[name]:.2f}", "", MEANING[name]] for name in ("FP", "FN")]
    table = tabulate(
        cells,
        headers=("error", "AP lost", "number", "what it is"),
        tablefmt="simple",
        disable_numparse=True,
        colalign=("left", "right", "right", "left"),
    )
    return (
        f"what each kind of error costs at IoU {iou:g}, repaired by itself (they hide each other "
        f"and do not add up):\n\n{table}"
    )


MEANING = {
    "Cls": "box right, class wrong",
    "Loc": "class right, box too loose",
    "Both": "class wrong, box too loose",
    "Dupe": "object found before",
    "Bkg": "no object there",
    "Miss": "object that no detection comes near",
    "FP": "all detections that are wrong",
    "FN": "all objects that are not found",
}


def _confusion(analysis: Analysis) -> str:
    pairs = analysis.confusion.most_confused(MOST_PAIRS)
    if not pairs:
        return ""
    often = ", ".join(f"{_short(a)} taken for {_short(b)} {count(n, 'time')}" for a, b, n in pairs)
    return f"most confused, at the scores above: {often}"


def _calibration(analysis: Analysis) -> str:
    calibration = analysis.calibration
    if math.isnan(calibration.ece):
        return ""
    return (
        f"scores are off by {calibration.ece:.3f} on average and by {calibration.mce:.3f} at most "
        "from the share of detections that is right (ECE, MCE)"
    )


def _points(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.2f}"


def _short(name: str) -> str:
    name = _printable(name)
    return name if len(name) <= MOST_LETTERS else f"{name[: MOST_LETTERS - 3]}..."


def _printable(line: str) -> str:
    """Names come from a file: no escape sequence of theirs reaches the terminal."""
    return "".join(x if x.isprintable() else "\N{REPLACEMENT CHARACTER}" for x in line)
