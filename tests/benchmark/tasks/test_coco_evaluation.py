"""Both evaluators get the same fabricated predictions and must give the same AP."""

from __future__ import annotations

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog

from retinanet_ext.benchmark import Benchmark, Disagreement
from retinanet_ext.benchmark.tasks.coco_evaluation import (
    coco_dataset,
    noisy_predictions,
    run_evaluation,
    synthetic_truth,
)
from retinanet_ext.evaluation import COCODetectionEvaluator


@pytest.fixture
def catalogs():
    """Nothing may stay behind in the catalogs."""
    before = set(DatasetCatalog.list()), set(MetadataCatalog.list())
    yield
    assert (set(DatasetCatalog.list()), set(MetadataCatalog.list())) == before


def test_evaluation_is_timed_after_ap_agrees(settings, catalogs, capsys):
    bench = Benchmark(settings)
    run_evaluation(bench)
    (row,) = bench.rows
    assert row.what == "COCO evaluation, 6 images" and "pycocotools" in row.note
    assert bench.agreement["evaluation"]["metrics, percent"] <= 1e-6
    assert capsys.readouterr().out == ""


def test_another_ap_is_not_measured(settings, catalogs, monkeypatch):
    evaluate = COCODetectionEvaluator.evaluate

    def wrong(self, img_ids=None):
        results = evaluate(self, img_ids)
        results["bbox"]["AP75"] += 1e-4
        return results

    monkeypatch.setattr(COCODetectionEvaluator, "evaluate", wrong)
    bench = Benchmark(settings)
    with pytest.raises(Disagreement, match=r"evaluation: AP75 differs by 0\.0001"):
        run_evaluation(bench)
    assert bench.rows == []


def test_predictions_are_neither_perfect_nor_useless(settings, tmp_path, catalogs):
    truth = synthetic_truth(settings)
    assert len(truth) == 6 and len(truth[0]) > 0
    with coco_dataset(tmp_path, truth, settings.num_classes) as name:
        evaluator = COCODetectionEvaluator(name)
        inputs = [{"image_id": i} for i in range(1, 7)]
        found = noisy_predictions(truth, settings.num_classes)
        evaluator.process(inputs, [{"instances": x} for x in found])
        metrics = evaluator.evaluate()["bbox"]
    assert 5 < metrics["AP"] < 90 and metrics["AP50"] > metrics["AP75"]
