"""Precision over recall and F1 over the score; calibration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..charts.axes import Plot, unit_axis
from ..charts.legend import figure
from ..html import Cell, fixed, is_known, number, percent, section, short, table
from .classes import MANY

__all__ = ["calibration", "scores"]


def scores(content: Mapping[str, Any]) -> str:
    """The section of the two curves."""
    curves = content["score_curves"]
    everything = curves["all"]
    if not everything["score"]:
        return section("scores", "Scores", "<p>There is nothing to draw: no detections.</p>")
    iou = content["settings"]["iou"]
    one = len(curves["classes"]) <= 1
    entries = [("all", "all classes together" if not one else "detections")]
    precision = Plot(unit_axis("recall"), unit_axis("precision"), "Precision over recall")
    f1 = Plot(unit_axis("score threshold"), unit_axis("F1"), "F1 over the score threshold")
    for i, (name, curve) in enumerate(curves["classes"].items() if not one else ()):
        precision.line(curve["recall"], curve["precision"], f"c{i}", name)
        f1.line(curve["score"], curve["f1"], f"c{i}", name)
        entries.append((f"c{i}", name))
    precision.line(everything["recall"], everything["precision"], "all", entries[0][1])
    f1.line(everything["score"], everything["f1"], "all", entries[0][1])
    best = everything["best"]
    precision.dot(best["recall"], best["precision"], "all", f"highest F1 {best['f1']:.3f}")
    f1.dot(best["score"], best["f1"], "all", f"highest F1 {best['f1']:.3f}")
    total = content["settings"]["classes"]
    some = ""
    if total > len(curves["classes"]) > 1:
        some = f" Shown are classes with the lowest and the highest AP50 of {number(total)}."
    words = (
        f"The dot is the highest F1 of all classes together: a score of {fixed(best['score'], 2)} "
        f"gives a precision of {percent(best['precision'])} and a recall of "
        f"{percent(best['recall'])}."
    )
    left = figure(
        "Precision over recall",
        precision.svg(),
        "Each point is a score threshold; lowering it goes to the right. Up and to the right is "
        f"better.{some}",
        entries,
    )
    right = figure("F1 over the score threshold", f1.svg(), words, entries)
    lead = (
        f"What a score threshold gives, at an IoU of {iou:g}: a higher one shows fewer wrong "
        "detections and misses more objects."
    )
    return section(
        "scores", "Which score threshold", f'<div class="two">{left}{right}</div>', lead=lead
    )


def calibration(content: Mapping[str, Any]) -> str:
    """Whether a score is the probability to be right."""
    found = content["calibration"]
    if not is_known(found["ece"]):
        return ""
    bins = found["bins"]
    plot = Plot(
        unit_axis("score"),
        unit_axis("share that is right"),
        "Share of detections that are right, by score",
    )
    for i, (count, share) in enumerate(zip(bins["count"], bins["precision"], strict=True)):
        if count:
            scores_of = f"scores from {i / 10:.1f} to {(i + 1) / 10:.1f}"
            words = f"{scores_of}: {percent(share)} of {count} are right"
            plot.bar(i / 10, (i + 1) / 10, share, "c0", words)
    plot.diagonal("a score that is the probability to be right")
    caption = (
        f"On average a score is off by {percent(found['ece'], 1)} (ECE), at most by "
        f"{percent(found['mce'], 1)} (MCE). Both count every detection, and most of them have low "
        "scores."
    )
    table_of = _class_calibration(found.get("classes", {}))
    lead = (
        "Of detections with a score of 0.7, 70 % should be right: bars at the dashed line. The "
        "focal loss makes scores too low by design, so that bars above the line are usual; that "
        "changes no AP, only which threshold is right."
    )
    chart = figure("Right detections by score", plot.svg(), caption)
    return section(
        "calibration",
        "Are scores probabilities",
        f'<div class="two">{chart}{table_of}</div>',
        lead=lead,
    )


def _class_calibration(rows: Mapping[str, Mapping[str, float]]) -> str:
    known = {name: row for name, row in rows.items() if is_known(row["ece"])}
    if not 1 < len(known) <= MANY:
        return ""
    cells: list[list[Cell]] = [
        [
            (short(name, 30), name[:200]),
            (percent(row["ece"], 1), row["ece"]),
            (percent(row["mce"], 1), row["mce"]),
        ]
        for name, row in known.items()
    ]
    headers = (("class", ""), ("ECE", "mean gap"), ("MCE", "largest gap of ten bins"))
    return f"<figure><h3>By class</h3>{table(headers, cells, sortable=True)}</figure>"
