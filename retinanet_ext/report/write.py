"""From ground truth and detections to the three files of a report."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..evaluation.analysis.results import Analysis
from ..evaluation.analysis.thresholds import write_thresholds
from ..evaluation.predictions.evaluate import evaluate_detections
from ..files import dump_json, write_text
from .compute.compare import Other, compare
from .compute.content import base_content
from .compute.options import ReportOptions
from .compute.shapes import NetworkInput
from .compute.subject import Subject
from .findings import Look, what_to_try
from .found import named_findings
from .galleries import draw_labels_missing, draw_worst, fitting
from .page.document import document

__all__ = ["Model", "Written", "write_report"]

MEGABYTE = 1_000_000


@dataclass(frozen=True)
class Model:
    """What is known of the detector beside its detections.

    Attributes:
        run_folder: OUTPUT_DIR of its training; "" is none.
        network: how it looks at pictures; None where that is not known.
        weights_sha256: checksum of its weights; "" if not known.
        sixteen_bit: ``INPUT.SIXTEEN_BIT``, for pictures of more than 8 bits.
        look: looks into the detector for the reasons of misses; None where it cannot be asked.
        why_no_look: a sentence where it should be asked and cannot be; else "".
        settings: of its config, see :func:`.findings.model_settings`; advice depends on them.
        called: OUTPUT_DIR as commands on the page have it, with the name of the weights in it; ""
            where a path of the user's disk would be told.
    """

    run_folder: str = ""
    network: NetworkInput | None = None
    weights_sha256: str = ""
    sixteen_bit: str = ""
    look: Look | None = None
    why_no_look: str = ""
    settings: Mapping[str, Any] | None = None
    called: tuple[str, str] = ("", "")


@dataclass(frozen=True)
class Written:
    """What was written.

    Attributes:
        page, numbers: paths of the html file and of report.json.
        thresholds: path of thresholds.yaml; "" where the thresholds were given.
        size: of the page, in bytes.
        remarks: sentences about what is odd.
        left_out: pictures for which there was no room.
        content: of report.json.
    """

    page: str
    numbers: str
    thresholds: str
    size: int
    remarks: list[str]
    left_out: int
    content: dict[str, Any] = field(repr=False)


def write_report(
    subject: Subject,
    output: str,
    numbers: str = "",
    options: ReportOptions | None = None,
    model: Model | None = None,
    other: Other | None = None,
    intersect: bool = False,
) -> Written:
    """Write the page, ``report.json`` and ``thresholds.yaml``.

    Args:
        subject: what the report is about.
        output: path of the html file; the others are beside it, whose folder is made.
        numbers: path of the json; ``report.json`` beside ``output`` by default.
        options: choices.
        model: what is known of the detector.
        other: detections to compare with.
        intersect: compare on the images that both have.

    Raises:
        ValueError: the options do not fit the detections, or the two sets cannot be compared.
        OSError: a file cannot be written.
    """
    options, model = options or ReportOptions(), model or Model()
    folder = Path(output).parent
    numbers = numbers or str(folder / "report.json")
    content, analysis = _content(subject, options, model)
    if other is not None:
        content["compare"] = compare(
            subject,
            other,
            options.iou,
            options.max_dets,
            options.draws,
            options.seed,
            intersect,
        )
    plain = json.loads(dump_json(content))
    plain["advice"] = [advice.to_json() for advice in what_to_try(plain)]
    text = dump_json(plain, indent=1)
    page, left_out = _page(subject, plain, options, model)
    for path in (output, numbers):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
    write_text(output, page)
    write_text(numbers, text + "\n")
    thresholds = ""
    if options.score_thresh is None:
        thresholds = str(folder / "thresholds.yaml")
        write_thresholds(
            thresholds, analysis.classes, options.iou, subject.name, model.weights_sha256
        )
    size = len(page.encode())
    return Written(output, numbers, thresholds, size, plain["remarks"], left_out, plain)


def _content(
    subject: Subject, options: ReportOptions, model: Model
) -> tuple[dict[str, Any], Analysis]:
    evaluated = evaluate_detections(
        subject.coco_gt,
        subject.detections,
        subject.names,
        options.iou,
        options.max_dets,
        options.thresholds(),
        subject.called,
    )
    content = base_content(subject, evaluated, options, model.run_folder, model.network)
    content |= named_findings(subject, evaluated.analysis, options, model.look, model.why_no_look)
    if model.settings is not None:
        content["model"] = dict(model.settings)
    if content["run"] and model.called[0]:
        content["run"] |= {"folder": model.called[0], "weights": model.called[1]}
    return content, evaluated.analysis


def _page(
    subject: Subject, content: dict[str, Any], options: ReportOptions, model: Model
) -> tuple[str, int]:
    """The html, and how many pictures had no room."""
    numbers = dump_json(content)
    bare = len(document(content, numbers).encode())
    worst, labels = [], []
    if options.images and subject.files:
        worst = draw_worst(subject, content.get("worst", []), model.sixteen_bit)
        labels = draw_labels_missing(subject, content.get("missing_labels", []), model.sixteen_bit)
    kept = fitting(bare, options.max_mb * MEGABYTE, worst, labels)
    left_out = len(worst) + len(labels) - sum(map(len, kept))
    return document(content, numbers, *kept), left_out
