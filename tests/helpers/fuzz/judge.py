"""Loads a variation as training does and says what is wrong with the outcome."""

from __future__ import annotations

import logging
import re
import signal
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog

from retinanet_ext import get_cfg
from retinanet_ext.data.augment import build_train_mapper
from retinanet_ext.data.datasets.by_path import register_extra_datasets
from retinanet_ext.data.datasets.check import check_datasets
from retinanet_ext.data.datasets.command_line import NAMES, name_datasets
from retinanet_ext.data.loading.bad_images import BadImageError, LoadOrFail
from retinanet_ext.errors import UserError, shown_error
from tests.helpers.fuzz.case import Case
from tests.helpers.fuzz.truth import Box, Truth

__all__ = ["Hang", "judge", "load", "shown", "time_limit", "wrong_message"]

SECONDS = 20  # for one variation, which takes a fiftieth of one
LONGEST = 1500  # characters of a sentence
PYTHON = re.compile(r"Traceback|\b(Type|Key|Index|Attribute|Overflow|Recursion|Assertion)Error\b")


class Hang(BaseException):
    """Not to be caught by what is tested."""


@contextmanager
def time_limit(seconds: int = SECONDS) -> Iterator[None]:
    def stop(*_: object) -> None:
        raise Hang

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


class _Warnings(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


@contextmanager
def _warnings() -> Iterator[list[str]]:
    handler, logger = _Warnings(), logging.getLogger("retinanet_ext")
    logger.addHandler(handler)
    try:
        yield handler.lines
    finally:
        logger.removeHandler(handler)


def config() -> CfgNode:
    """Pictures stay as they are, so that boxes can be compared."""
    cfg = get_cfg()
    cfg.MODEL.META_ARCHITECTURE = "RetinaNetExt"
    cfg.DATASETS.CACHE_DIR, cfg.DATASETS.VAL_FRACTION = "none", 0.0
    cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.RANDOM_FLIP = (0,), "none"
    return cfg


def load(case: Case, cfg: CfgNode) -> Truth:
    """What training gets: the path named, registered, checked, every picture read.

    Raises:
        AssertionError: the mapper's boxes are not those of the dataset.
    """
    cfg = cfg.clone()
    name = NAMES["train"]
    for catalog in (DatasetCatalog, MetadataCatalog):
        if name in catalog:
            catalog.pop(name)
    name_datasets(cfg, case.spec, None, case.classes_file)
    register_extra_datasets(cfg)
    classes = MetadataCatalog.get(name).thing_classes
    cfg.MODEL.RETINANET.NUM_CLASSES = len(classes)
    check_datasets(cfg)
    truth = Truth(list(classes))
    mapper = LoadOrFail(build_train_mapper(cfg), "remove it")
    for record in DatasetCatalog.get(name):
        picture = Path(record["file_name"]).name
        assert picture not in truth.sizes, f"{picture} is there twice"
        truth.sizes[picture] = record["height"], record["width"]
        truth.boxes[picture] = {
            place: Box(classes[x["category_id"]], tuple(x["bbox"]), bool(x["iscrowd"]))
            for place, x in enumerate(record["annotations"])
        }
        mapped = mapper(dict(record))["instances"]
        objects = [x.corners for x in truth.boxes[picture].values() if not x.crowd]
        got = mapped.gt_boxes.tensor.numpy()
        assert mapped.image_size == truth.sizes[picture]
        assert np.allclose(got, np.array(objects, np.float32).reshape(-1, 4), atol=1e-3)
    return truth


def wrong_message(case: Case, message: str, places: bool = True) -> str:
    """What is wrong with an error; "" if nothing is."""
    if not any(word and word in message for word in case.touched):
        return "does not name the file"
    if "\n" in message.strip() or len(message) > LONGEST:
        return "is no single sentence"
    if PYTHON.search(message):
        return "shows Python's own error"
    if places and case.places and not any(word in message for word in case.places):
        return f"names none of {case.places}"
    return ""


def judge(case: Case, cfg: CfgNode) -> str:
    """What is wrong with what training gets of a variation; "" if nothing is."""
    try:
        with time_limit(), _warnings() as said:
            found = load(case, cfg)
    except Hang:
        return "HANG"
    except UserError as error:
        message = str(error)
        of_picture = isinstance(error, BadImageError)
        wrong = wrong_message(case, message, places=not of_picture)
    except Exception as error:
        sentence = shown_error(error)
        if sentence is None:
            return f"TRACEBACK {shown(error)}"
        message = str(sentence)
        wrong = wrong_message(case, message, places=False)
    else:
        return _wrong_result(case, found, said)
    if not case.may_refuse:
        return f"REFUSED: {message}"
    return f"MESSAGE {wrong}: {message[:400]}" if wrong else ""


def _wrong_result(case: Case, found: Truth, said: list[str]) -> str:
    if not case.accepted:
        return f"SILENT: must be refused, gave {_difference(case.truth, found)}; said {said}"
    for truth, must_say in case.accepted:
        if truth.key() == found.key():
            named = any(word and word in line for word in case.touched for line in said)
            if named or not must_say:
                return ""
    return f"SILENT: {_difference(case.accepted[0][0], found)}; said {said}"


def _difference(truth: Truth, found: Truth) -> str:
    if truth.classes != found.classes:
        return f"classes {found.classes} instead of {truth.classes}"
    (_, a), (_, b) = truth.key(), found.key()
    rows = [f"{k}: {b.get(k)} instead of {a.get(k)}" for k in {**a, **b} if a.get(k) != b.get(k)]
    return "; ".join(rows) or "the same"


def shown(error: BaseException) -> str:
    """An exception that is a bug, with where it was raised."""
    tail = "".join(traceback.format_tb(error.__traceback__)[-2:])
    return f"{type(error).__name__}: {error}\n{tail}"
