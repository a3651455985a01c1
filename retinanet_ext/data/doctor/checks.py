"""All checks of a training and a validation set, in order, with a progress bar."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tqdm import tqdm

from ...boxes import AnchorLevel
from .boxes import check_boxes
from .findings import CODES, Fault, Finding, list_findings
from .ids import check_lists, missing_files
from .images import ImageFacts, check_images, duplicate_images
from .leakage import compare_tables
from .sources import LoadedTable
from .statistics import (
    InputSize,
    check_anchors,
    check_classes,
    count_objects,
    describe_sizes,
)
from .table import DatasetTable

__all__ = ["Report", "add_reader_warnings", "examine", "find_faults"]

MAX_LISTED = 10_000  # of one code in one dataset; the counts are of all


@dataclass
class Report:
    """What was found.

    Attributes:
        findings: errors first; at most ``MAX_LISTED`` of one code in one dataset.
        counts: numbers of all findings, by (dataset, code).
        datasets: for each dataset by name, plain numbers for json: ``source``, ``images``,
            ``images_without_objects``, ``annotations``, ``crowds``, ``objects`` (usable ones),
            ``classes`` (objects by name), ``sizes``, and for the training set ``anchors``.
    """

    findings: list[Finding] = field(default_factory=list)
    counts: dict[tuple[str, str], int] = field(default_factory=dict)
    datasets: dict[str, dict[str, Any]] = field(default_factory=dict)

    def total(self, severity: str) -> int:
        """Number of all findings of a severity."""
        return sum(n for (_, code), n in self.counts.items() if CODES[code][0] == severity)

    @property
    def exit_code(self) -> int:
        """0 for clean data, 1 for warnings only, 2 for errors."""
        if self.total("error"):
            return 2
        return 1 if self.total("warning") else 0


def find_faults(table: DatasetTable, facts: Mapping[str, ImageFacts] | None = None) -> list[Fault]:
    """Everything wrong with one dataset's lists, boxes and files; only faults that occur.

    Args:
        facts: what ``read_images`` found in its files, by path; files without an entry, of a table
            that knows their folder, are only looked for.
    """
    facts = facts or {}
    faults = [*check_lists(table, facts), *check_boxes(table)]
    faults += [*check_images(table, facts), duplicate_images(table, facts)]
    if table.no_images:
        faults.append(Fault.of_dataset("no_images", table.no_images))
    elif table.knows_folder:
        faults.append(missing_files(table, facts))
    return [fault for fault in faults if len(fault.rows)]


def examine(
    tables: Sequence[DatasetTable],
    input_size: InputSize,
    levels: Sequence[AnchorLevel] = (),
    facts: Mapping[str, ImageFacts] | None = None,
    divisor: int = 32,
    refusal: Callable[[DatasetTable], str] | None = None,
) -> Report:
    """Check one dataset, or the training and the validation set, in this order.

    Args:
        tables: one or two; the first one's classes and anchors are judged as training data.
        input_size: of training.
        levels: the anchors; none: they are not checked.
        facts: see :func:`find_faults`.
        divisor: resized images are padded to multiples of it.
        refusal: why training would refuse a dataset, "" if it would not; asked of those in which
            the checks have found no error.
    """
    report = Report()
    steps: list[tuple[DatasetTable, Callable[[], list[Fault]]]] = []

    def statistics(table: DatasetTable, is_train: bool) -> list[Fault]:
        numbers = report.datasets[table.name] = _describe(table, input_size)
        faults = check_classes(table)
        if not is_train:
            return [x for x in faults if x.code != "imbalance"]
        if levels and numbers["objects"]:
            numbers["anchors"], uncovered = check_anchors(table, input_size, levels, divisor)
            faults += uncovered
        return faults

    for number, table in enumerate(tables):
        steps.append((table, lambda t=table: find_faults(t, facts)))  # type: ignore[misc]
        steps.append((table, lambda t=table, n=number: statistics(t, n == 0)))  # type: ignore[misc]
        if refusal is not None:
            steps.append((table, lambda t=table: _refused(report, t, refusal)))  # type: ignore[misc]
    if len(tables) > 1:
        steps.append((tables[0], lambda: compare_tables(tables[0], tables[1], facts)))
    hidden = not sys.stderr.isatty()
    for table, step in tqdm(steps, "checking annotations", disable=hidden, leave=False):
        _add(report, table, step())
    report.findings.sort(key=lambda x: x.severity != "error")
    return report


def add_reader_warnings(report: Report, loaded: LoadedTable) -> None:
    """Add what the reader of training warned of: files that it leaves out, doubtful numbers."""
    faults = [Fault.of_dataset("reader_warning", text) for text in loaded.said]
    _add(report, loaded.table, faults)
    report.findings.sort(key=lambda x: x.severity != "error")


def _refused(
    report: Report, table: DatasetTable, refusal: Callable[[DatasetTable], str]
) -> list[Fault]:
    found = [code for name, code in report.counts if name == table.name]
    if any(CODES[code][0] == "error" for code in found):
        return []  # which may be the same in other words
    why = refusal(table)
    return [Fault.of_dataset("refused", why)] if why else []


def _add(report: Report, table: DatasetTable, faults: list[Fault]) -> None:
    for fault in faults:
        key = (table.name, fault.code)
        if len(fault.rows):
            listed = min(report.counts.get(key, 0), MAX_LISTED)
            report.counts[key] = report.counts.get(key, 0) + len(fault.rows)
            report.findings += list_findings(table, [fault], MAX_LISTED - listed)


def _describe(table: DatasetTable, input_size: InputSize) -> dict[str, Any]:
    counts = count_objects(table)
    with_boxes = set(table.image_of.tolist()) - {-1}
    return {
        "source": table.source,
        "images": len(table.files),
        "images_without_objects": len(table.files) - len(with_boxes),
        "annotations": len(table.bboxes),
        "crowds": int(table.is_crowd.sum()),
        "objects": int(counts.sum()),
        "classes": {
            name: int(count) for name, count in zip(table.class_names, counts, strict=True)
        },
        "input_size": [input_size.short, input_size.long],
        "sizes": describe_sizes(table, input_size),
    }
