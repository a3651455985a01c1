"""Loads a variation of a COCO json by a registered name, for which Detectron2's reader is used."""

from __future__ import annotations

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog

from retinanet_ext.data import check_datasets, load_class_names, register_coco_dataset
from retinanet_ext.errors import UserError, shown_error
from tests.helpers.fuzz.case import Case
from tests.helpers.fuzz.coco import FILE
from tests.helpers.fuzz.judge import Hang, shown, time_limit

__all__ = ["judge_registered"]

NAME = "fuzzed"


def judge_registered(case: Case, cfg: CfgNode) -> str:
    """What is wrong with the errors; what it reads of a json is Detectron2's own affair."""
    cfg = cfg.clone()
    for catalog in (DatasetCatalog, MetadataCatalog):
        if NAME in catalog:
            catalog.pop(NAME)
    json_file, _, images = case.spec.partition(":")
    register_coco_dataset(NAME, json_file, images)
    cfg.DATASETS.TRAIN = (NAME,)
    try:
        with time_limit():
            cfg.MODEL.RETINANET.NUM_CLASSES = len(load_class_names(NAME) or ())
            check_datasets(cfg)
    except Hang:
        return "registered: HANG"
    except Exception as error:
        known = error if isinstance(error, UserError) else shown_error(error)
        if known is None:
            return f"registered: TRACEBACK {shown(error)}"
        message, named = str(known), (FILE, *case.touched, *case.truth.sizes)
        if "\n" in message.strip() or not any(word in message for word in named):
            return f"registered: MESSAGE {message}"
    return ""
