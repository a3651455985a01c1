"""Everything that a report shows, as the dict that becomes ``report.json``."""

from __future__ import annotations

import dataclasses
from typing import Any

from ...evaluation.analysis.bootstrap import Interval, bootstrap_ap
from ...evaluation.analysis.calibration import calibrate_classes
from ...evaluation.analysis.recall_by_shape import recall_by_shape
from ...evaluation.analysis.results import as_json
from ...evaluation.predictions.evaluate import EvaluatedFile
from .curves import score_curves
from .history import mask_results, read_curves, read_run
from .options import ReportOptions
from .shapes import NetworkInput, shapes_in_network
from .subject import Subject

__all__ = ["base_content"]

MOST_CALIBRATED = 1000  # classes whose calibration is given


def base_content(
    subject: Subject,
    evaluated: EvaluatedFile,
    options: ReportOptions,
    run_folder: str = "",
    network: NetworkInput | None = None,
) -> dict[str, Any]:
    """All but what needs the model, another run or pictures.

    Args:
        subject: what the report is about.
        evaluated: its numbers.
        options: choices.
        run_folder: OUTPUT_DIR of the training; "" is none.
        network: how the model looks at pictures, where that is known.
    """
    analysis = evaluated.analysis
    content = {"dataset": subject.name, "run": {}, **as_json(analysis)}
    content["settings"] |= {
        "classes": len(analysis.classes),
        "threshold": options.threshold_words(),
        "bootstrap_draws": options.draws,
        "seed": options.seed,
    }
    content["remarks"] = [*subject.remarks, *evaluated.remarks]
    if options.draws >= 2 and len(analysis.assignment.tables.image_ids):
        tables = analysis.assignment.tables
        found = bootstrap_ap(tables, options.max_dets, options.draws, options.seed)
        content["intervals"] = {name: _interval(x) for name, x in found.items()}
    ap50 = {row.name: row.AP50 for row in analysis.classes if row.num_objects}
    content["score_curves"] = score_curves(analysis.assignment, ap50)
    content["most_confused"] = [
        {"actual": actual, "detected": detected, "count": number}
        for actual, detected, number in analysis.confusion.most_confused()
    ]
    if len(analysis.classes) <= MOST_CALIBRATED:
        content["calibration"]["classes"] = {
            row.name: {"ece": one.ece, "mce": one.mce}
            for row, one in zip(
                analysis.classes, calibrate_classes(analysis.assignment), strict=True
            )
        }
    thresholds = analysis.confusion.thresholds
    if network is None:
        shapes = recall_by_shape(analysis.assignment, thresholds)
    else:
        shapes = shapes_in_network(analysis.assignment, thresholds, subject.coco_gt, network)
    content["recall_grid"] = {
        "pixels": "picture" if network is None else "network",
        **{
            field.name: value.tolist()
            for field in dataclasses.fields(shapes)
            if (value := getattr(shapes, field.name)) is not None
        },
    }
    if run_folder:
        content["run"] = read_run(run_folder)
        curves = read_curves(run_folder, subject.name)
        if curves:
            content["training"] = curves
            masks = mask_results(curves["evaluations"], content["summary"]["AP"])
            content |= {"masks": masks} if masks else {}
    return content


def _interval(interval: Interval) -> dict[str, float]:
    return {
        "value": interval.value,
        "low": interval.low,
        "high": interval.high,
        "std_err": interval.std_err,
    }
