"""Pictures and AP for ``retinanet-ext export``, from the data of the run."""

from __future__ import annotations

import argparse
import logging
import os
from typing import Any

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog
from torch import nn

from ...data.datasets.by_path import register_extra_datasets
from ...engine import RetinaNetTrainer
from ...errors import InputError
from ...export.int8 import Measure
from .given_images import list_images
from .numbers import positive_int

__all__ = [
    "NUM_PICTURES",
    "add_int8_options",
    "ap_on_test_set",
    "calibration_pictures",
    "test_pictures",
]

NUM_PICTURES = 4
"""That a file is compared on."""

NUM_CALIBRATE = 128


def add_int8_options(parser: argparse.ArgumentParser) -> None:
    """Add what a network of 8 bits needs."""
    group = parser.add_argument_group("8 bits")
    group.add_argument(
        "--precision",
        choices=("float32", "int8"),
        default="float32",
        help="int8: a smaller and faster network, whose AP is measured (default: float32)",
    )
    group.add_argument(
        "--calibrate",
        default="",
        metavar="FOLDER|val",
        help="pictures that show what values the layers take: of a folder, or of the test set",
    )
    group.add_argument(
        "--num-calibrate",
        type=positive_int,
        default=NUM_CALIBRATE,
        metavar="N",
        help=f"so many of them (default: {NUM_CALIBRATE})",
    )
    group.add_argument(
        "--force", action="store_true", help="keep the file whatever its AP, or without one"
    )


def calibration_pictures(cfg: CfgNode, args: argparse.Namespace) -> list[str]:
    """Files that ``--calibrate`` names, evenly taken.

    Raises:
        InputError: it is missing, or goes with nothing.
    """
    if args.precision != "int8":
        if args.calibrate:
            raise InputError("--calibrate goes with --precision int8, which is missing")
        return []
    if not args.calibrate:
        raise InputError(
            "--precision int8 needs pictures: --calibrate FOLDER, or --calibrate val for those of "
            "the test set"
        )
    if args.calibrate == "val":
        return test_pictures(cfg, args.num_calibrate)
    return _evenly(list_images([args.calibrate], "--calibrate"), args.num_calibrate)


def test_pictures(cfg: CfgNode, most: int = NUM_PICTURES) -> list[str]:
    """Files of the first test set that is on this machine, evenly taken."""
    for name in cfg.DATASETS.TEST:
        found = _records(cfg, name)
        if there := [x for x in (record["file_name"] for record in found) if os.path.isfile(x)]:
            return _evenly(there, most)
    return []


def ap_on_test_set(cfg: CfgNode, scratch: str) -> Measure | None:
    """What measures a model on ``DATASETS.TEST``; None where that is not on this machine.

    Args:
        cfg: of the run.
        scratch: a folder for the detections.
    """
    if not cfg.DATASETS.TEST or not all(_records(cfg, name) for name in cfg.DATASETS.TEST[:1]):
        return None
    cfg = cfg.clone()
    cfg.defrost()
    cfg.DATASETS.TEST = cfg.DATASETS.TEST[:1]
    cfg.OUTPUT_DIR = scratch
    cfg.freeze()

    def measure(model: nn.Module) -> float:
        level = logging.root.manager.disable
        logging.disable(logging.WARNING)
        try:
            return float(RetinaNetTrainer.test(cfg, model)["bbox"]["AP"])
        finally:
            logging.disable(level)

    return measure


def _records(cfg: CfgNode, name: str) -> list[dict[str, Any]]:
    try:
        register_extra_datasets(cfg, [name])
        return DatasetCatalog.get(name)
    except (OSError, ValueError, KeyError):  # not on this machine
        return []


def _evenly(found: list[str], most: int) -> list[str]:
    step = max(1, len(found) // most)
    return found[::step][:most]
