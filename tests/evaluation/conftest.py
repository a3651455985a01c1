"""Data sets for the tests of evaluation, registered for one test each."""

from __future__ import annotations

import copy
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BoxMode

from tests.helpers.coco_scenes import SIZE, register_json


@pytest.fixture
def register(tmp_path: Path) -> Iterator[Callable[[dict], str]]:
    """Register COCO json content as a dataset, for one test."""
    names = []

    def add(truth: dict[str, Any]) -> str:
        names.append(register_json(tmp_path, truth))
        return names[-1]

    yield add
    for name in names:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


@pytest.fixture
def standard_dicts() -> Iterator[tuple[str, list[dict]]]:
    """A dataset without json_file; the list may be changed by the test."""
    name = f"test_dicts_{uuid.uuid4().hex}"
    annotation = {"bbox": [10, 10, 60, 60], "bbox_mode": BoxMode.XYXY_ABS, "category_id": 0}
    dicts = [
        {
            "file_name": f"{i}.png",
            "image_id": i,
            "height": SIZE,
            "width": SIZE,
            "annotations": [copy.deepcopy(annotation)],
        }
        for i in range(3)
    ]
    DatasetCatalog.register(name, lambda: copy.deepcopy(dicts))
    MetadataCatalog.get(name).thing_classes = ["disc", "bar"]
    yield name, dicts
    DatasetCatalog.remove(name)
    MetadataCatalog.remove(name)
