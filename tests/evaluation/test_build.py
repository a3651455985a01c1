"""The evaluator follows from the dataset's metadata."""

from __future__ import annotations

import builtins
import sys
import types
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from detectron2.config import CfgNode, get_cfg
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import LVISEvaluator, PascalVOCDetectionEvaluator

from retinanet_ext.evaluation import COCODetectionEvaluator, build_evaluator
from tests.helpers.coco_file import coco_file


@pytest.fixture
def cfg(tmp_path: Path) -> CfgNode:
    cfg = get_cfg()
    cfg.OUTPUT_DIR = str(tmp_path / "output")
    return cfg


@pytest.fixture
def dataset() -> Iterator[Callable[..., str]]:
    """Register a dataset of one empty image with the given metadata."""
    names = []

    def add(**metadata: Any) -> str:
        name = f"test_build_{uuid.uuid4().hex}"
        image = {"file_name": "a.png", "image_id": 0, "height": 8, "width": 8, "annotations": []}
        DatasetCatalog.register(name, lambda: [dict(image)])
        MetadataCatalog.get(name).set(thing_classes=["a"], **metadata)
        names.append(name)
        return name

    yield add
    for name in names:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


@pytest.fixture
def json_file(tmp_path: Path) -> str:
    return str(coco_file(tmp_path / "gt.json", {"a.png": (8, 8)}, first_id=0, categories={0: "a"}))


def test_coco_dataset_gets_our_evaluator(cfg, dataset, json_file):
    evaluator = build_evaluator(cfg, dataset(evaluator_type="coco", json_file=json_file))
    assert type(evaluator) is COCODetectionEvaluator


def test_dataset_without_evaluator_type_is_evaluated_as_coco(cfg, dataset):
    assert type(build_evaluator(cfg, dataset())) is COCODetectionEvaluator


def test_detections_per_image_reaches_the_evaluator(cfg, dataset):
    cfg.TEST.DETECTIONS_PER_IMAGE = 300
    evaluator = build_evaluator(cfg, dataset())
    evaluator.reset()
    assert "AR300" in evaluator.evaluate()["bbox"]


def test_predictions_go_to_inference_and_apart_for_several_datasets(cfg, dataset, tmp_path):
    first, second = dataset(), dataset()
    results = "coco_instances_results.json"
    cfg.DATASETS.TEST = (first,)
    build_evaluator(cfg, first).evaluate()
    assert (tmp_path / "output" / "inference" / results).is_file()
    cfg.DATASETS.TEST = (first, second)
    build_evaluator(cfg, second).evaluate()
    assert (tmp_path / "output" / "inference" / second / results).is_file()
    build_evaluator(cfg, first, output_dir=str(tmp_path / "mine")).evaluate()
    assert (tmp_path / "mine" / results).is_file()


def test_pascal_voc_dataset_gets_detectron2s_evaluator(cfg, dataset, tmp_path):
    name = dataset(evaluator_type="pascal_voc", dirname=str(tmp_path), split="val", year=2012)
    assert type(build_evaluator(cfg, name)) is PascalVOCDetectionEvaluator


def test_lvis_dataset_gets_detectron2s_evaluator(cfg, dataset, json_file, monkeypatch):
    class FakeLVIS:
        def __init__(self, path: str) -> None:
            self.path = path

        def get_ann_ids(self) -> list[int]:
            return [1]

    monkeypatch.setitem(sys.modules, "lvis", types.SimpleNamespace(LVIS=FakeLVIS))
    evaluator = build_evaluator(cfg, dataset(evaluator_type="lvis", json_file=json_file))
    assert type(evaluator) is LVISEvaluator


def test_missing_lvis_package_is_named(cfg, dataset, json_file, monkeypatch):
    real_import = builtins.__import__

    def without_lvis(name: str, *args: Any) -> Any:
        if name == "lvis":
            raise ModuleNotFoundError("No module named 'lvis'", name="lvis")
        return real_import(name, *args)

    monkeypatch.setattr(builtins, "__import__", without_lvis)
    with pytest.raises(ImportError, match="pip install lvis"):
        build_evaluator(cfg, dataset(evaluator_type="lvis", json_file=json_file))


def test_unknown_evaluator_type_lists_the_known_ones(cfg, dataset):
    with pytest.raises(ValueError, match=r"'sem_seg'.*'coco', 'lvis' and 'pascal_voc'"):
        build_evaluator(cfg, dataset(evaluator_type="sem_seg"))


def test_unknown_dataset_names_the_nearest_and_creates_no_metadata(cfg, dataset):
    known = dataset()
    with pytest.raises(KeyError, match=f"Did you mean '{known}'"):
        build_evaluator(cfg, known + "x")
    assert known + "x" not in MetadataCatalog
