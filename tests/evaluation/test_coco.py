"""The evaluator: Detectron2's numbers and files, all processes, never NaN for nothing found."""

from __future__ import annotations

import contextlib
import io
import json
import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.engine import launch
from detectron2.evaluation import COCOEvaluator
from detectron2.utils import comm

from retinanet_ext.engine.launch.child_errors import leave_group
from retinanet_ext.evaluation import COCODetectionEvaluator
from tests.helpers.coco_scenes import (
    CLASSES,
    OVERALL,
    exact_predictions,
    feed,
    noisy_predictions,
    random_ground_truth,
    register_json,
    score,
)


def test_ap_equals_detectron2s_evaluator(register, capsys):
    rng = np.random.default_rng(0)
    truth = random_ground_truth(rng)
    name, predictions = register(truth), noisy_predictions(rng, truth, noise=0.08)
    DatasetCatalog.get(name)  # Detectron2 learns the class ids by loading
    detectron2 = COCOEvaluator(name, ("bbox",), False, use_fast_impl=False)
    detectron2.reset()
    feed(detectron2, predictions)
    theirs = detectron2.evaluate()["bbox"]
    ours = score(name, predictions)
    assert {key: ours[key] for key in theirs} == pytest.approx(theirs, abs=1e-9)


def test_evaluation_prints_nothing(register, capsys):
    truth = random_ground_truth(np.random.default_rng(0), num_images=4, num_objects=8)
    name = register(truth)
    with contextlib.redirect_stdout(io.StringIO()):
        DatasetCatalog.get(name)
    capsys.readouterr()
    score(name, exact_predictions(truth), use_fast_impl=False)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("use_fast_impl", [True, False])
@pytest.mark.parametrize("images_seen", [True, False])
def test_no_detections_give_zero_and_a_warning(register, caplog, images_seen, use_fast_impl):
    # images_seen False: Detectron2's evaluator returns {} in this case.
    truth = random_ground_truth(np.random.default_rng(0), crowd=0)
    nothing = {i["id"]: [] for i in truth["images"]} if images_seen else {}
    with caplog.at_level(logging.WARNING, logger="retinanet_ext"):
        metrics = score(register(truth), nothing, use_fast_impl=use_fast_impl)
    assert metrics == dict.fromkeys(OVERALL + [f"AP-{name}" for name in CLASSES], 0.0)
    assert "detected nothing" in caplog.text


@pytest.mark.parametrize("detections", [True, False])
def test_dataset_without_objects_has_finite_headline_metrics(register, caplog, detections):
    rng = np.random.default_rng(0)
    truth = random_ground_truth(rng)
    predictions = noisy_predictions(rng, truth, 0.1) if detections else {}
    truth["annotations"] = []
    metrics = score(register(truth), predictions)
    assert list(metrics) == OVERALL + [f"AP-{name}" for name in CLASSES]
    assert [metrics[k] for k in ("AP", "AP50", "AP75", "AR1", "AR10", "AR100")] == [0.0] * 6
    assert "no objects to find" in caplog.text


@pytest.mark.parametrize("limit", [0, -1])
def test_senseless_limit_is_refused(register, limit):
    name = register(random_ground_truth(np.random.default_rng(0)))
    with pytest.raises(ValueError, match=r"TEST\.DETECTIONS_PER_IMAGE"):
        COCODetectionEvaluator(name, max_dets_per_image=limit)


def test_repeated_image_counts_once(register):
    rng = np.random.default_rng(0)
    truth = random_ground_truth(rng)
    name, predictions = register(truth), noisy_predictions(rng, truth, 0.08)
    evaluator = COCODetectionEvaluator(name, distributed=False)
    feed(evaluator, predictions)
    feed(evaluator, {3: predictions[3], 1: []})  # the first prediction of an image stands
    assert evaluator.evaluate()["bbox"] == pytest.approx(score(name, predictions), nan_ok=True)


def test_predictions_of_all_processes_count_and_only_the_main_one_answers(register, monkeypatch):
    rng = np.random.default_rng(0)
    truth = random_ground_truth(rng)
    name, predictions = register(truth), noisy_predictions(rng, truth, 0.08)
    evaluator = COCODetectionEvaluator(name)
    other = COCODetectionEvaluator(name)
    feed(evaluator, {i: found for i, found in predictions.items() if i <= 21})
    feed(other, {i: found for i, found in predictions.items() if i >= 20})  # 20 and 21 padded
    monkeypatch.setattr(comm, "gather", lambda data, dst: [data, other._predictions])
    assert evaluator.evaluate()["bbox"] == score(name, predictions)
    monkeypatch.setattr(comm, "gather", lambda data, dst: [])
    monkeypatch.setattr(comm, "is_main_process", lambda: False)
    assert other.evaluate() == {}


@pytest.mark.slow
def test_two_processes_give_the_numbers_of_one(register, tmp_path):
    launch(_evaluate_in_one_of_two, 2, dist_url="auto", args=(str(tmp_path),))
    numbers = [json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in (0, 1)]
    truth = random_ground_truth(np.random.default_rng(0))
    predictions = noisy_predictions(np.random.default_rng(1), truth, 0.08)
    assert numbers == [{"bbox": score(register(truth), predictions)}, {}]


def _evaluate_in_one_of_two(folder: str) -> None:
    rank = comm.get_rank()
    truth = random_ground_truth(np.random.default_rng(0))
    predictions = noisy_predictions(np.random.default_rng(1), truth, 0.08)
    evaluator = COCODetectionEvaluator(register_json(Path(folder), truth))
    feed(evaluator, {i: found for i, found in predictions.items() if i % 2 == rank or i == 7})
    (Path(folder) / f"rank{rank}.json").write_text(json.dumps(evaluator.evaluate()))
    leave_group()


def test_second_detection_of_an_object_is_false(register):
    boxes = [[10.0, 10.0, 50.0, 50.0], [100.0, 100.0, 50.0, 50.0]]  # XYWH
    truth = random_ground_truth(np.random.default_rng(0), 1, 2, classes=("cell",), crowd=0)
    for ann, box in zip(truth["annotations"], boxes, strict=True):
        ann.update(bbox=box, area=2500.0)
    first, second = ([x, y, x + w, y + h] for x, y, w, h in boxes)
    metrics = score(register(truth), {1: [(first, 0.9, 0), (first, 0.8, 0), (second, 0.7, 0)]})
    # Precision is 1 up to recall 0.5 (51 of 101 thresholds), then 2 of 3.
    assert metrics["AP"] == pytest.approx(100 * (51 + 50 * 2 / 3) / 101)
    assert metrics["AR1"] == pytest.approx(50) and metrics["AR10"] == pytest.approx(100)


def test_evaluating_twice_gives_the_same(register):
    rng = np.random.default_rng(0)
    truth = random_ground_truth(rng)
    evaluator = COCODetectionEvaluator(register(truth), distributed=False)
    feed(evaluator, noisy_predictions(rng, truth, 0.08))
    assert evaluator.evaluate() == evaluator.evaluate()


def test_image_ids_choose_what_is_evaluated(register):
    truth = random_ground_truth(np.random.default_rng(0), crowd=0)
    evaluator = COCODetectionEvaluator(register(truth), distributed=False)
    exact = exact_predictions(truth)
    feed(evaluator, {i: found for i, found in exact.items() if i in (1, 2, 3)})
    assert evaluator.evaluate(img_ids=[1, 2, 3])["bbox"]["AP"] == pytest.approx(100)
    assert evaluator.evaluate()["bbox"]["AP"] < 50


def test_files_are_detectron2s(register, tmp_path):
    rng = np.random.default_rng(0)
    truth = random_ground_truth(rng)
    name, predictions = register(truth), noisy_predictions(rng, truth, 0.08)
    DatasetCatalog.get(name)
    written = {}
    for label, cls in (("theirs", COCOEvaluator), ("ours", COCODetectionEvaluator)):
        folder = tmp_path / label
        evaluator = cls(name, ("bbox",), False, str(folder), use_fast_impl=False)
        evaluator.reset()
        feed(evaluator, predictions)
        with contextlib.redirect_stdout(io.StringIO()):
            evaluator.evaluate()
        saved = torch.load(folder / "instances_predictions.pth")
        results = json.loads((folder / "coco_instances_results.json").read_text())
        written[label] = (sorted(p.name for p in folder.iterdir()), saved, results)
    assert written["ours"] == written["theirs"]


def test_json_without_annotations_saves_predictions_only(register, tmp_path):
    truth = random_ground_truth(np.random.default_rng(0))
    predictions = exact_predictions(truth)
    del truth["annotations"]
    name = register(truth)
    MetadataCatalog.get(name).thing_classes = list(CLASSES)
    MetadataCatalog.get(name).thing_dataset_id_to_contiguous_id = {2: 0, 5: 1, 8: 2, 11: 3}
    evaluator = COCODetectionEvaluator(name, distributed=False, output_dir=str(tmp_path / "out"))
    feed(evaluator, predictions)
    assert evaluator.evaluate() == {}
    assert json.loads((tmp_path / "out" / "coco_instances_results.json").read_text())


def test_class_beyond_the_dataset_is_named(register):
    truth = random_ground_truth(np.random.default_rng(0))
    with pytest.raises(ValueError, match=r"predicts class 4.* has 4 classes.*NUM_CLASSES"):
        score(register(truth), {1: [([0, 0, 9, 9], 0.5, 4)]})


def test_image_of_another_dataset_is_named(register):
    truth = random_ground_truth(np.random.default_rng(0))
    with pytest.raises(ValueError, match="image_id 999"):
        score(register(truth), {999: []})


def test_masks_are_referred_to_detectron2(register):
    name = register(random_ground_truth(np.random.default_rng(0)))
    with pytest.raises(ValueError, match=r"detectron2\.evaluation\.COCOEvaluator"):
        COCODetectionEvaluator(name, ("bbox", "segm"))
