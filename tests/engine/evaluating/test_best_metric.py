"""The best of the evaluations of a run, by one of its numbers."""

from __future__ import annotations

import math

import pytest

from retinanet_ext.engine.evaluating.best_metric import (
    Evaluation,
    best_evaluation,
    evaluations_since_best,
    missing_metric,
)


def record(*values, name="bbox/AP"):
    return [Evaluation(i, {name: value}) for i, value in enumerate(values)]


@pytest.mark.parametrize(
    ("values", "name", "best", "since"),
    [
        ((1.0, 3.0, 2.0), "bbox/AP", 1, 1),
        ((1.0, 3.0, 3.0), "bbox/AP", 1, 1),  # of equal ones the earlier
        ((2.0, 1.0, 3.0), "val_loss/total", 1, 1),
        ((2.0, 1.0, 3.0), "ema/val_Loss/total", 1, 1),
        ((math.nan, 0.0, math.nan), "bbox/AP", 1, 1),
        ((math.inf, 0.0, -math.inf), "bbox/AP", 1, 1),
        ((-2.0, -1.0), "bbox/AP", 1, 0),
        ((math.nan, math.nan), "bbox/AP", None, 2),
        ((), "bbox/AP", None, 0),
    ],
)
def test_best_and_evaluations_since(values, name, best, since):
    evaluations = record(*values, name=name)
    found = best_evaluation(evaluations, name)
    assert (found and found.iteration) == best
    assert evaluations_since_best(evaluations, name) == since


def test_names_that_end_with_the_metric_come_before_those_that_look_like_it():
    known = ["bbox/AP50", "bbox/AP75", "coco_2017_val/bbox/AP"]
    assert missing_metric("bbox/AP", known).endswith(
        "gives coco_2017_val/bbox/AP, bbox/AP75, bbox/AP50"
    )


def test_of_many_names_the_number_is_said():
    assert missing_metric("AP", [f"x{i}" for i in range(10)]).endswith("x7 and 2 more")
