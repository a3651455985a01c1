"""The settings of a run: the keys that it changes, and the hash that names its folder."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog

from retinanet_ext import get_cfg
from retinanet_ext.config import flatten

# What changes neither the trained model nor its AP.
NOT_HASHED = {
    "OUTPUT_DIR",
    "SEED",
    "VERSION",
    "VIS_PERIOD",
    "CUDNN_BENCHMARK",
    "MODEL.DEVICE",
    "DATALOADER.NUM_WORKERS",
    "SOLVER.CHECKPOINT_PERIOD",
    "TEST.EVAL_PERIOD",
}


def changed_keys(cfg: CfgNode) -> dict[str, Any]:
    """Keys and values of ``cfg`` that differ from the package's defaults, tuples as lists.

    Only these are hashed, so that a key that a later version adds leaves finished runs finished.
    """
    defaults = {key: _plain(value) for key, value in flatten(get_cfg())}
    values = {key: _plain(value) for key, value in flatten(cfg)}
    return {key: value for key, value in values.items() if value != defaults[key]}


def settings_hash(settings: dict[str, Any]) -> str:
    """Eight letters that name the settings which matter for the result, without the seed."""
    kept = {key: value for key, value in settings.items() if key not in NOT_HASHED}
    kept["files"] = [_annotations(name) for name in settings.get("DATASETS.TRAIN", [])]
    text = json.dumps(kept, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _annotations(dataset: str) -> str:
    """The last parts of a dataset's json file: the quickstart's has its version there."""
    known = MetadataCatalog.get(dataset).get("json_file") if dataset in MetadataCatalog else None
    return "/".join(Path(known).parts[-3:]) if known else dataset


def _plain(value: Any) -> Any:
    return [_plain(v) for v in value] if isinstance(value, (list, tuple)) else value
