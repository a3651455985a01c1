"""A tiny dataset and config for the tests of the engine, which must not leave log handlers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from detectron2.config import CfgNode

from retinanet_ext.data.datasets.register import register_coco_dataset
from tests.helpers.tiny import restored_loggers, tiny_cfg


@pytest.fixture(autouse=True)
def quiet_loggers() -> Iterator[None]:
    """Leave no log handlers behind."""
    with restored_loggers():
        yield


@pytest.fixture
def cfg(tiny_root: Path, tmp_path: Path) -> CfgNode:
    """A config that trains 5 iterations on the tiny dataset, with output in ``tmp_path``."""
    for split in ("train", "val"):
        json_file = tiny_root / "bccd" / "annotations" / f"instances_{split}.json"
        register_coco_dataset(f"tiny_{split}", str(json_file), str(tiny_root / "bccd" / split))
    cfg = tiny_cfg(tmp_path)
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = ("tiny_train",), ("tiny_val",)
    return cfg
