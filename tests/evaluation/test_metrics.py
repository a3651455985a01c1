"""The keys of the results, what they are where nothing is defined, and the table."""

from __future__ import annotations

import logging
import math

import numpy as np
import pytest

from tests.helpers.coco_scenes import (
    CLASSES,
    OVERALL,
    exact_predictions,
    random_ground_truth,
    score,
)


def test_keys_are_complete_and_in_percent(register):
    truth = random_ground_truth(np.random.default_rng(0), crowd=0)
    metrics = score(register(truth), exact_predictions(truth))
    assert list(metrics) == OVERALL + [f"AP-{name}" for name in CLASSES]
    assert all(type(value) is float for value in metrics.values())
    found_whole = [key for key in metrics if key not in ("AR1", "AR10")]
    assert [metrics[key] for key in found_whole] == pytest.approx([100.0] * len(found_whole))
    assert 0 < metrics["AR1"] < metrics["AR10"] <= 100


def test_single_class_has_its_own_key(register):
    truth = random_ground_truth(np.random.default_rng(0), classes=("cell",), crowd=0)
    metrics = score(register(truth), exact_predictions(truth))
    assert list(metrics) == [*OVERALL, "AP-cell"]
    assert metrics["AP-cell"] == metrics["AP"]


def test_sizes_and_classes_without_ground_truth_are_nan_and_leave_the_rest_alone(register, caplog):
    truth = random_ground_truth(np.random.default_rng(0), num_objects=150, crowd=0)
    small = [a for a in truth["annotations"] if a["area"] < 32**2 and a["category_id"] != 2]
    truth["annotations"] = small
    with caplog.at_level(logging.INFO, logger="retinanet_ext"):
        metrics = score(register(truth), exact_predictions(truth))
    undefined = {key for key, value in metrics.items() if math.isnan(value)}
    assert undefined == {"APm", "APl", "ARm", "ARl", "AP-disc"}
    assert metrics["AP"] == metrics["APs"] == pytest.approx(100)
    assert " nan" not in caplog.text


def test_log_shows_ap_ar_and_every_class(register, caplog):
    truth = random_ground_truth(np.random.default_rng(0), crowd=0)
    with caplog.at_level(logging.INFO, logger="retinanet_ext"):
        score(register(truth), exact_predictions(truth))
    (text,) = [x for x in caplog.messages if "in percent" in x]
    lines = text.splitlines()
    assert any(line.split() == OVERALL[:6] for line in lines)
    assert any(line.split() == OVERALL[6:12] for line in lines)
    discs = sum(a["category_id"] == 2 for a in truth["annotations"])
    assert any(line.split() == ["disc", str(discs), "100.00"] for line in lines)
