"""Which category is which class, gaps in a json, and conversion without stale copies."""

from __future__ import annotations

import json
import uuid
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import COCOEvaluator
from detectron2.structures import Boxes, BoxMode, Instances

from retinanet_ext.evaluation import COCODetectionEvaluator
from tests.helpers.coco_scenes import (
    CLASSES,
    exact_predictions,
    noisy_predictions,
    random_ground_truth,
    score,
)


def test_classes_follow_the_mapping_even_if_it_reorders_ids(register):
    truth = random_ground_truth(np.random.default_rng(0), crowd=0)
    name = register(truth)
    meta = MetadataCatalog.get(name)
    meta.json_file  # noqa: B018  (set by registration)
    meta.thing_classes = ["star", "ring", "bar", "disc"]
    meta.thing_dataset_id_to_contiguous_id = {11: 0, 8: 1, 5: 2, 2: 3}
    exact = exact_predictions(truth)
    reordered = {i: [(b, s, 3 - k) for b, s, k in found if k != 0] for i, found in exact.items()}
    metrics = score(name, reordered)
    assert metrics["AP-disc"] == 0
    assert metrics["AP-star"] == metrics["AP-ring"] == metrics["AP-bar"] == pytest.approx(100)


def test_ids_that_need_a_mapping_are_refused_without_one(tmp_path):
    name = f"test_unmapped_{uuid.uuid4().hex}"
    truth = random_ground_truth(np.random.default_rng(0))
    (tmp_path / "gt.json").write_text(json.dumps(truth))
    MetadataCatalog.get(name).set(json_file=str(tmp_path / "gt.json"), thing_classes=list(CLASSES))
    try:
        with pytest.raises(ValueError, match="thing_dataset_id_to_contiguous_id"):
            score(name, {})
    finally:
        MetadataCatalog.remove(name)


@pytest.mark.parametrize("mapping", [{2: 0, 5: 1, 8: 1, 11: 2}, {2: 1, 5: 2, 8: 3, 11: 4}])
def test_mapping_that_is_not_one_to_one_is_refused(register, mapping):
    name = register(random_ground_truth(np.random.default_rng(0)))
    MetadataCatalog.get(name).thing_classes = list(CLASSES)
    MetadataCatalog.get(name).thing_dataset_id_to_contiguous_id = mapping
    with pytest.raises(ValueError, match=r"reach each of 0\.\.3 once"):
        score(name, {})


def test_annotation_with_id_zero_is_reported(register, caplog):
    truth = random_ground_truth(np.random.default_rng(0))
    truth["annotations"][0]["id"] = 0
    COCODetectionEvaluator(register(truth))
    assert "annotation with id 0" in caplog.text


def test_missing_area_iscrowd_and_info_are_filled_in(register):
    truth = random_ground_truth(np.random.default_rng(0), crowd=0)
    predictions = noisy_predictions(np.random.default_rng(1), truth, 0.08)
    for ann in truth["annotations"]:
        ann["area"] = ann["bbox"][2] * ann["bbox"][3]
    complete = score(register(truth), predictions)
    for ann in truth["annotations"]:
        del ann["area"], ann["iscrowd"]
    assert score(register(truth), predictions) == complete


BOX = ([10.0, 10.0, 60.0, 60.0], 0.9, 0)


def test_standard_dicts_are_converted_and_cached_by_content(standard_dicts, tmp_path):
    name, dicts = standard_dicts
    found = {i: [BOX] for i in range(3)}
    assert score(name, found, output_dir=str(tmp_path))["AP"] == pytest.approx(100)
    before = _converted(tmp_path)
    assert len(before) == 1
    assert score(name, found, output_dir=str(tmp_path))["AP"] == pytest.approx(100)
    assert _converted(tmp_path) == before  # neither converted again nor touched

    dicts[0]["annotations"][0]["bbox"] = [300, 300, 400, 400]
    assert score(name, found, output_dir=str(tmp_path))["AP"] < 70
    assert len(_converted(tmp_path)) == 2


def _converted(folder: Path) -> dict[str, int]:
    return {p.name: p.stat().st_mtime_ns for p in folder.glob("*_coco_format_*.json")}


def test_class_names_are_part_of_the_content(standard_dicts, tmp_path):
    name, _ = standard_dicts
    COCODetectionEvaluator(name, output_dir=str(tmp_path))
    MetadataCatalog.get(name).__dict__["thing_classes"] = ["disc", "ring"]
    metrics = score(name, {0: [BOX]}, output_dir=str(tmp_path))
    assert "AP-ring" in metrics and len(_converted(tmp_path)) == 2


def test_stale_copy_of_detectron2_is_not_used(standard_dicts, tmp_path):
    name, dicts = standard_dicts
    COCOEvaluator(name, ("bbox",), False, str(tmp_path))  # leaves json_file in the metadata
    stale = MetadataCatalog.get(name).json_file
    dicts[0]["annotations"][0]["bbox"] = [300, 300, 400, 400]
    assert score(name, {i: [BOX] for i in range(3)}, output_dir=str(tmp_path))["AP"] < 70
    assert MetadataCatalog.get(name).json_file == stale  # as we found it


def test_conversion_needs_no_output_dir_and_leaves_no_json_file(standard_dicts):
    name, _ = standard_dicts
    assert score(name, {i: [BOX] for i in range(3)})["AP"] == pytest.approx(100)
    assert MetadataCatalog.get(name).get("json_file") is None


def test_dicts_without_any_object_have_finite_metrics(standard_dicts, caplog):
    name, dicts = standard_dicts
    for d in dicts:
        d["annotations"] = []
    assert score(name, {0: [BOX]})["AP"] == 0.0
    assert "no objects to find" in caplog.text


def test_dicts_without_class_names_are_refused(standard_dicts):
    name, _ = standard_dicts
    del MetadataCatalog.get(name).__dict__["thing_classes"]
    with pytest.raises(ValueError, match="thing_classes"):
        COCODetectionEvaluator(name)


def test_unknown_dataset_is_refused():
    with pytest.raises(KeyError, match="no_such_dataset"):
        COCODetectionEvaluator("no_such_dataset")
    MetadataCatalog.remove("no_such_dataset")


def test_files_that_a_dataset_generates_on_loading_are_there_in_time(register):
    truth = random_ground_truth(np.random.default_rng(0), crowd=0)
    name = register(truth)
    json_file = Path(MetadataCatalog.get(name).json_file)
    load = DatasetCatalog[name]
    content = json_file.read_text()
    json_file.unlink()
    DatasetCatalog[name] = lambda: (json_file.write_text(content), load())[1]
    assert score(name, exact_predictions(truth))["AP"] == pytest.approx(100)


def test_ids_of_numpy_are_numbers(tmp_path):
    name = f"test_numpy_{uuid.uuid4().hex}"
    box = {"bbox": [4, 3, 20, 20], "bbox_mode": BoxMode.XYWH_ABS, "category_id": np.int64(0)}
    size = {"height": np.int64(60), "width": np.int64(80)}
    dicts = [
        {"file_name": f"{i}.png", "image_id": np.int64(i), "annotations": [box], **size}
        for i in range(3)
    ]
    DatasetCatalog.register(name, lambda: dicts)
    MetadataCatalog.get(name).thing_classes = ["cell"]
    try:
        evaluator = COCODetectionEvaluator(name, distributed=False, output_dir=str(tmp_path))
        for record in dicts:
            found = Instances((60, 80), pred_boxes=Boxes(torch.tensor([[4.0, 3.0, 24.0, 23.0]])))
            found.scores, found.pred_classes = torch.ones(1), torch.zeros(1, dtype=torch.int64)
            evaluator.process([record], [{"instances": found}])
        assert evaluator.evaluate()["bbox"]["AP"] == pytest.approx(100)
        written = json.loads((tmp_path / "coco_instances_results.json").read_text())
        assert [x["image_id"] for x in written] == [0, 1, 2]
    finally:
        DatasetCatalog.remove(name), MetadataCatalog.remove(name)
