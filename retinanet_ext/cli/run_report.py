"""The report of a training: which sets it was evaluated on, and what is known of its model."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode

from ..anchor_tools.levels import anchor_levels
from ..console import SHOWN
from ..errors import MissingFileError, UserError, one_line
from ..evaluation.predictions.reading import read_predictions
from ..files import CHECKSUM
from ..inference import Predictor
from ..inference.build import is_pooled
from ..inference.raw_heads import RawHeads
from ..report import (
    Model,
    Other,
    ReportOptions,
    Subject,
    Written,
    subject_of_dataset,
    write_report,
)
from ..report.compute.shapes import NetworkInput
from ..report.findings import model_settings
from ..structures import RETINANET_ARCHITECTURES

__all__ = ["other_run", "predictions_of", "report_after_training", "report_on", "said_of"]

logger = logging.getLogger(__name__)

RESULTS = "coco_instances_results.json"
PAGE = "report.html"
DRAWS_AFTER_TRAINING = 300
MOST_IMAGES_AFTER_TRAINING = 500
"""Fewer draws than by command, and the model is asked about few images only: the end of a training
on thousands of images should not take minutes."""


def predictions_of(folder: str, dataset: str) -> str:
    """Path of the detections that the last evaluation of a training has left.

    Args:
        folder: OUTPUT_DIR.
        dataset: name of the test set.

    Raises:
        FileNotFoundError: there are none; says how to get them.
    """
    places = [os.path.join(folder, "inference", *part, RESULTS) for part in ((dataset,), ())]
    for path in places:
        if os.path.isfile(path):
            return path
    raise MissingFileError(
        f"'{folder}' holds no detections of {dataset} (no {places[1]}); evaluate it first: "
        f"retinanet-ext evaluate --config-file {os.path.join(folder, 'config.yaml')} --resume"
    )


def report_on(
    cfg: CfgNode,
    dataset: str,
    options: ReportOptions,
    output: str = "",
    numbers: str = "",
    other: Other | None = None,
    intersect: bool = False,
    ask_at_most: int = sys.maxsize,
) -> Written:
    """Write the report of one test set of a training.

    Args:
        cfg: of the training, with its OUTPUT_DIR.
        dataset: registered name of the test set.
        options: choices.
        output: path of the page; beside the detections by default.
        numbers: path of report.json; beside the page by default.
        ask_at_most: of a test set with no more images than this, the model is run on the pictures
            with misses, to tell their reasons.
        other, intersect: what it is compared with, see :func:`retinanet_ext.report.write_report`.

    Raises:
        UserError: what is missing or wrong.
        OSError: a file cannot be read or written.
    """
    if cfg.MODEL.META_ARCHITECTURE == "ProposalNetwork":
        raise MissingFileError(
            f"'{cfg.OUTPUT_DIR}' is of a ProposalNetwork, which gives no detections to report on; "
            "the recall of its proposals is in evaluations.json"
        )
    predictions = predictions_of(cfg.OUTPUT_DIR, dataset)
    subject = subject_of_dataset(dataset, predictions)
    look, why_not = None, ""
    if subject.files and len(subject.coco_gt.imgs) <= ask_at_most:
        look, why_not = _look(cfg, subject)
    model = Model(
        run_folder=cfg.OUTPUT_DIR,
        network=_network(cfg),
        weights_sha256=_checksum(cfg.MODEL.WEIGHTS),
        sixteen_bit=cfg.INPUT.SIXTEEN_BIT,
        look=look,
        why_no_look=why_not,
        settings=model_settings(cfg) if _is_retinanet(cfg) else None,
        called=_called(cfg),
    )
    page = output or str(Path(predictions).with_name(PAGE))
    return write_report(subject, page, numbers, options, model, other, intersect)


def report_after_training(cfg: CfgNode) -> None:
    """Write the reports of a training that has ended, and say where; a failure is one warning.

    Args:
        cfg: of the training.
    """
    options = ReportOptions(max_dets=cfg.TEST.DETECTIONS_PER_IMAGE, draws=DRAWS_AFTER_TRAINING)
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.WEIGHTS = os.path.join(cfg.OUTPUT_DIR, "model_final.pth")
    for dataset in cfg.DATASETS.TEST:
        try:
            written = report_on(cfg, dataset, options, ask_at_most=MOST_IMAGES_AFTER_TRAINING)
        except MissingFileError as error:  # of an evaluator that leaves no such file
            logger.info("no report on %s: %s", dataset, error)
        except Exception as error:  # whatever it is: the training is done and its model is there
            logger.debug("the report failed", exc_info=True)
            logger.warning(
                "no report on %s was written (%s); the training is not affected, and "
                "`retinanet-ext report %s` tries again",
                dataset,
                one_line(error),
                cfg.OUTPUT_DIR,
            )
        else:
            logger.info("report: %s", written.page, extra=SHOWN)


def other_run(folder: str, dataset: str, this_run: str) -> Other:
    """The detections of another training, for a comparison.

    Args:
        folder: its OUTPUT_DIR.
        dataset: name of the test set that they should be of.
        this_run: OUTPUT_DIR of the training that it is compared with; "" is none.

    Raises:
        UserError: it has no such detections, or they cannot be read.
    """
    detections = read_predictions(predictions_of(folder, dataset))
    name = os.path.basename(os.path.abspath(folder))
    theirs, ours = _evaluated_on(folder, dataset), _evaluated_on(this_run, dataset)
    same = theirs.get("sha256") is not None and theirs.get("sha256") == ours.get("sha256")
    return Other(name, detections, None if same else _images_in(theirs.get("annotations")))


def said_of(written: Written) -> list[str]:
    """Lines for the console about what was written."""
    lines = [f"{written.page}: the report ({written.size / 1e6:.1f} MB)"]
    lines.append(f"{written.numbers}: every number in it")
    if written.thresholds:
        lines.append(
            f"{written.thresholds}: score thresholds of the classes, for "
            "`retinanet-ext predict --score-thresh`"
        )
    if written.left_out:
        lines.append(f"{written.left_out} pictures had no room; --max-mb gives more")
    return lines


def _look(cfg: CfgNode, subject: Subject) -> tuple[RawHeads | None, str]:
    """What looks into the model, or a sentence why nothing does."""
    try:
        predictor = Predictor(cfg)
        names = [subject.names[i] for i in sorted(subject.names)]
        return RawHeads(predictor, subject.files, names), ""
    except UserError as error:
        why = one_line(error).replace(os.path.join(cfg.OUTPUT_DIR, ""), "")
        return None, f"The model could not be asked: {why}."


def _called(cfg: CfgNode) -> tuple[str, str]:
    """OUTPUT_DIR and weights for commands; "" for a folder elsewhere than below the current one."""
    folder = os.path.relpath(cfg.OUTPUT_DIR)
    if os.path.isabs(folder) or folder.split(os.sep)[0] == os.pardir:
        return "", ""
    return folder, os.path.basename(cfg.MODEL.WEIGHTS) or "model_final.pth"


def _is_retinanet(cfg: CfgNode) -> bool:
    """Whether the model reads MODEL.RETINANET."""
    return cfg.MODEL.META_ARCHITECTURE in RETINANET_ARCHITECTURES


def _network(cfg: CfgNode) -> NetworkInput | None:
    """How the model looks at a picture; None where it looks at tiles, views or another shape."""
    if is_pooled(cfg) or cfg.INPUT.SIZE_TEST:
        return None
    network = NetworkInput(cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST)
    if not _is_retinanet(cfg):
        return network
    try:
        levels, padded_to = anchor_levels(cfg)
    except (UserError, RuntimeError, NotImplementedError, AttributeError) as error:
        # Someone's own backbone or anchors, which cannot be built without weights.
        logger.info("the report shows no anchors: %s", one_line(error))
        return network
    return dataclasses.replace(network, levels=levels, padded_to=padded_to)


def _checksum(weights: str) -> str:
    """What the file beside the weights says of them; "" without one."""
    try:
        with open(weights + CHECKSUM, encoding="utf-8") as file:
            return file.read().partition(" ")[0].strip()
    except (OSError, UnicodeDecodeError):
        return ""


def _evaluated_on(folder: str, dataset: str) -> Mapping[str, Any]:
    """What ``run.json`` says of a test set: its annotations and their checksum; {} of unknown."""
    try:
        with open(os.path.join(folder, "run.json"), encoding="utf-8") as file:
            rows = json.load(file)["datasets"]["test"]
        named = [row for row in rows if row["name"] == dataset]
        return dict((named or rows)[0])
    except (OSError, ValueError, KeyError, IndexError, TypeError):
        return {}


def _images_in(annotations: object) -> dict[Any, str] | None:
    """Id and file name of the images of a COCO json; None where it is none, or not there."""
    try:
        with open(str(annotations), encoding="utf-8") as file:
            images = json.load(file)["images"]
        return {row["id"]: str(row.get("file_name", "")) for row in images}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
