"""A report as text for people and as json for programs."""

from __future__ import annotations

import dataclasses
import shutil
import textwrap
from typing import Any

from tabulate import tabulate

from ...errors import count
from .checks import Report
from .findings import CODES, Finding
from .statistics import MEDIUM, SMALL

__all__ = ["format_report", "report_as_json"]

SHOWN = 3  # places shown of each code in each dataset
SHOWN_CLASSES = 100
MIN_WIDTH, MAX_WIDTH = 60, 100  # letters in a line of text


def format_report(report: Report) -> str:
    """Tables of the datasets, classes, sizes and findings, and a line with the verdict."""
    parts = [_datasets(report), _classes(report), _sizes(report), *_anchors(report)]
    parts += [_findings(report)] if report.findings else []
    return "\n\n".join([x for x in parts if x] + [_verdict(report)])


def report_as_json(report: Report) -> dict[str, Any]:
    """The whole report in types that json knows; ids that it does not know become text."""
    counts = [
        {"dataset": dataset, "code": code, "severity": CODES[code][0], "count": number}
        for (dataset, code), number in report.counts.items()
    ]
    return {
        "version": 1,
        "exit_code": report.exit_code,
        "errors": report.total("error"),
        "warnings": report.total("warning"),
        "counts": counts,
        "datasets": report.datasets,
        "findings": [
            {**dataclasses.asdict(x), "annotation_id": _plain(x.annotation_id)}
            for x in report.findings
        ],
    }


def _datasets(report: Report) -> str:
    columns = ("images", "images_without_objects", "annotations", "crowds", "objects")
    rows = [
        (name, *(numbers[x] for x in columns), len(numbers["classes"]))
        for name, numbers in report.datasets.items()
    ]
    headers = ("dataset", "images", "without objects", "annotations", "crowds", "objects")
    return tabulate(rows, headers=(*headers, "classes"))


def _classes(report: Report) -> str:
    names = dict.fromkeys(c for x in report.datasets.values() for c in x["classes"])
    totals = [x["objects"] or 1 for x in report.datasets.values()]
    rows = []
    for name in list(names)[:SHOWN_CLASSES]:
        counts = [x["classes"].get(name, 0) for x in report.datasets.values()]
        cells = [f"{n} ({n / total:.1%})" for n, total in zip(counts, totals, strict=True)]
        rows.append((name, *cells))
    if len(names) > SHOWN_CLASSES:
        rows.append((f"... and {len(names) - SHOWN_CLASSES} more",))
    align = ("left", *["right"] * len(totals))
    return tabulate(
        rows, headers=("objects of class", *report.datasets), colalign=align if rows else None
    )


def _sizes(report: Report) -> str:
    rows: list[tuple[Any, ...]] = []
    shape = ""
    points: tuple[str, ...] = ()
    for name, numbers in report.datasets.items():
        sizes = numbers["sizes"]
        if sizes["percentiles"]:
            shape = " x ".join(f"{x:g}" for x in numbers["input_size"])
            points = tuple(sizes["percentiles"])
            kinds = (sizes["small"], sizes["medium"], sizes["large"])
            rows.append((name, *sizes["percentiles"].values(), *kinds))
    if not rows:
        return ""
    headers = ("sqrt(area) in pixels", *(f"{x}%" for x in points))
    table = tabulate(rows, headers=(*headers, "small", "medium", "large"))
    return (
        f"Object sizes in pixels of the network's input, images resized to {shape}:\n{table}\n"
        f"small: below {SMALL:g}, large: above {MEDIUM:g}, as in 'anchors show'; APs and APl of an "
        "evaluation count\nin pixels of the image files."
    )


def _anchors(report: Report) -> list[str]:
    lines = []
    for name, numbers in report.datasets.items():
        found = numbers.get("anchors")
        if found and found["objects"]:
            share = found["uncovered"] / found["objects"]
            lines.append(
                f"{name}: no anchor covers {found['uncovered']} of {found['objects']} objects "
                f"({share:.1%}) at IoU {found['iou']:g}"
            )
    return lines


def _findings(report: Report) -> str:
    """Findings of one code and dataset together, the first places of each, errors first."""
    groups: dict[tuple[str, str], list[Finding]] = {}
    for finding in report.findings:
        groups.setdefault((finding.dataset, finding.code), []).append(finding)
    width = min(max(shutil.get_terminal_size((MAX_WIDTH, 24)).columns, MIN_WIDTH), MAX_WIDTH)
    parts = []
    for (dataset, code), findings in groups.items():
        severity, meaning = CODES[code]
        total = report.counts[dataset, code]
        lines = [f"{severity} {code} in {dataset}, {count(total, 'time')}: {meaning}"]
        for finding in findings[:SHOWN]:
            place = finding.file
            if finding.annotation_id is not None:
                place += f", annotation {finding.annotation_id!r}"
            lines += [f"  {place}", *_wrapped(finding.message, width)]
        if total > SHOWN:
            lines.append(f"  ... and {total - SHOWN} more")
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def _wrapped(text: str, width: int) -> list[str]:
    return textwrap.wrap(
        text,
        width,
        initial_indent=" " * 4,
        subsequent_indent=" " * 4,
        break_long_words=False,  # a path is to be copied
        break_on_hyphens=False,
    )


def _verdict(report: Report) -> str:
    errors, warnings = report.total("error"), report.total("warning")
    if not errors and not warnings:
        return "Nothing found."
    return f"{count(errors, 'error')}, {count(warnings, 'warning')}."


def _plain(value: Any) -> Any:
    return value if isinstance(value, (str, int)) or value is None else str(value)
