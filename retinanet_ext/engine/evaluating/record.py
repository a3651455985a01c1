"""All evaluations of a run in one file, ``evaluations.json``."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Sequence

from detectron2.utils import comm

from ...files import dump_json, write_text
from .best_metric import Evaluation

__all__ = ["read_evaluation", "write_evaluations"]

logger = logging.getLogger(__name__)


def read_evaluation(path: str, iteration: int) -> Evaluation | None:
    """The evaluation of an iteration, in the main process; None where the file has none."""
    if not comm.is_main_process() or not os.path.isfile(path):
        return None
    try:
        with open(path) as file:
            evaluations = [Evaluation.from_plain(x) for x in json.load(file)]
    except (OSError, ValueError, KeyError, TypeError) as error:
        logger.warning("%s cannot be read (%s); evaluating again", path, error)
        return None
    return next((x for x in evaluations if x.iteration == iteration), None)


def write_evaluations(path: str, evaluations: Sequence[Evaluation]) -> None:
    """Write the file in one step, in the main process; without evaluations, remove it.

    An error of the disk is logged: the list is in the checkpoints too.
    """
    if not comm.is_main_process():
        return
    try:
        if not evaluations:
            if os.path.exists(path):
                os.remove(path)
            return
        os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
        write_text(path, dump_json([x.to_plain() for x in evaluations], indent=1))
    except OSError as error:
        logger.error("%s cannot be written (%s); training continues", path, error)
