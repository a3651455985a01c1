"""Differences beyond rounding are named; rounding passes."""

from __future__ import annotations

import math

import pytest
import torch
from detectron2.structures import Boxes, Instances

from retinanet_ext.benchmark import Disagreement
from retinanet_ext.benchmark.agreement import (
    compare_detections,
    compare_gradients,
    compare_labels,
    compare_losses,
    compare_metrics,
    compare_parameter_gradients,
)
from retinanet_ext.structures import DenseTargets


def detections(scores=(0.9, 0.8, 0.7), classes=(0, 1, 2), shift=0.0) -> list[Instances]:
    boxes = torch.arange(4.0 * len(scores)).view(-1, 4) * 10 + shift
    return [
        Instances(
            (99, 99),
            pred_boxes=Boxes(boxes),
            scores=torch.tensor(scores),
            pred_classes=torch.tensor(classes),
        )
    ]


def test_rounding_of_losses_passes_and_is_reported():
    theirs, ours = {"loss": torch.tensor(1.0)}, {"loss": torch.tensor(1.000005)}
    assert compare_losses("t", theirs, ours)["losses, relative"] == pytest.approx(5e-6, rel=0.05)


@pytest.mark.parametrize("value", [1.0001, math.nan])
def test_another_loss_is_named_with_both_values(value):
    with pytest.raises(Disagreement, match=r"t: loss differs by .*1 against"):
        compare_losses("t", {"loss": torch.tensor(1.0)}, {"loss": torch.tensor(value)})


def test_a_missing_loss_is_no_agreement():
    with pytest.raises(Disagreement, match="loss_cls"):
        compare_losses("t", {"loss_cls": torch.tensor(1.0)}, {})


def test_gradients_are_compared_with_the_largest_of_their_tensor():
    theirs = {"w": torch.tensor([100.0, 0.0])}
    assert compare_gradients("t", theirs, {"w": torch.tensor([100.0, 0.005])})
    with pytest.raises(Disagreement, match="gradient of w"):
        compare_gradients("t", theirs, {"w": torch.tensor([100.0, 0.02])})
    with pytest.raises(Disagreement, match="only one side has a gradient for w"):
        compare_gradients("t", theirs, {})


def test_parameters_may_differ_by_a_kink_but_not_together():
    theirs = {"a": torch.tensor([1000.0, 0.0]), "b": torch.tensor([1.0, 0.0])}
    found = compare_parameter_gradients("t", theirs, {**theirs, "b": torch.tensor([1.0, 0.05])})
    assert found["gradient, relative length"] == pytest.approx(5e-5)
    assert found["of the worst parameter"] == pytest.approx(0.05)
    with pytest.raises(Disagreement, match=r"gradient of b differs by 0\.2"):
        compare_parameter_gradients("t", theirs, {**theirs, "b": torch.tensor([1.2, 0.0])})
    with pytest.raises(Disagreement, match=r"gradient of all parameters differs by 0\.002"):
        compare_parameter_gradients("t", theirs, {**theirs, "a": torch.tensor([1000.0, 2.0])})
    with pytest.raises(Disagreement, match="gradient of a differs by nan"):
        compare_parameter_gradients("t", theirs, {**theirs, "a": theirs["a"] * math.nan})
    with pytest.raises(Disagreement, match="only one side"):
        compare_parameter_gradients("t", theirs, {})


def test_rounding_may_move_the_gradient_as_far_as_detectron2s_own():
    theirs, ours = {"a": torch.tensor([1.0, 0.0])}, {"a": torch.tensor([1.0, 0.003])}
    rounded = {"a": torch.tensor([1.0, 0.002])}
    found = compare_parameter_gradients("t", theirs, ours, lambda: rounded)
    assert found["of Detectron2's with rounded weights"] == pytest.approx(0.002)
    rounded = {"a": torch.tensor([1.0, 0.001])}
    with pytest.raises(
        Disagreement, match=r"by 0\.003, allowed is 0\.002 .*Detectron2's by 0\.001"
    ):
        compare_parameter_gradients("t", theirs, ours, lambda: rounded)
    within = {"a": torch.tensor([1.0, 0.0005])}
    compare_parameter_gradients("t", theirs, within, lambda: pytest.fail("not needed"))


def test_labels_must_be_equal_and_boxes_where_positive():
    labels = torch.tensor([[0, 2, -1]])
    boxes = torch.zeros(1, 3, 4)
    theirs = (list(labels), list(boxes))
    other_background = boxes.clone()
    other_background[0, 1] = 5.0  # undefined there
    compare_labels("t", theirs, DenseTargets(labels, other_background, 2))
    with pytest.raises(Disagreement, match="1 of 3 anchors differ"):
        compare_labels("t", theirs, DenseTargets(torch.tensor([[1, 2, -1]]), boxes, 2))
    other_positive = boxes.clone()
    other_positive[0, 0] = 5.0
    with pytest.raises(Disagreement, match="1 of 3 anchors differ"):
        compare_labels("t", theirs, DenseTargets(labels, other_positive, 2))


def test_detections_may_be_swapped_and_rounded():
    swapped = [detections()[0][[1, 0, 2]]]
    swapped[0].scores += 1e-6
    found = compare_detections("t", detections(), swapped, 0.05)
    assert 0 < found["scores"] < 1e-5 and found["boxes, pixels"] == 0


@pytest.mark.parametrize(
    "ours",
    [
        detections(scores=(0.9, 0.79, 0.7)),
        detections(classes=(0, 2, 2)),
        detections(shift=0.1),
        detections(scores=(0.9, 0.8), classes=(0, 1)),
    ],
    ids=["score", "class", "box", "count"],
)
def test_other_detections_are_no_agreement(ours):
    with pytest.raises(Disagreement, match="t, detections of image 0"):
        compare_detections("t", detections(), ours, 0.05)


def test_the_lowest_kept_detection_may_be_another():
    found = compare_detections("t", detections(), detections(classes=(0, 1, 0)), 0.05)
    assert found == {"scores": 0.0, "boxes, pixels": 0.0}


def test_one_at_the_threshold_may_be_missing_and_no_other():
    extra = detections(scores=(0.9, 0.8, 0.7, 0.05001), classes=(0, 1, 2, 0))
    assert compare_detections("t", detections(), extra, 0.05)["scores"] == 0
    with pytest.raises(Disagreement, match="3 against 4, and 1 of one side"):
        compare_detections("t", detections(), extra, 0.04)
    with pytest.raises(Disagreement, match="3 against 0"):
        compare_detections("t", detections(), [detections()[0][:0]], 0.05)


def test_no_detections_on_both_sides_agree():
    none = [detections()[0][:0]]
    assert compare_detections("t", none, none, 0.05) == {"scores": 0.0, "boxes, pixels": 0.0}


def test_metrics_agree_to_a_millionth_of_a_percent_and_nan_equals_nan():
    theirs = {"AP": 50.0, "APs": math.nan}
    compare_metrics("t", theirs, {"AP": 50.0000005, "APs": math.nan, "AR": 3.0})
    for ours in ({"AP": 50.00001, "APs": math.nan}, {"AP": 50.0, "APs": 1.0}, {"APs": math.nan}):
        with pytest.raises(Disagreement, match="t: AP"):
            compare_metrics("t", theirs, ours)


def test_at_the_limit_the_lowest_may_be_missing_on_one_side_but_no_other():
    scores = (0.9, 0.8, 0.7)
    theirs, ours = detections(scores, (0, 1, 2)), detections(scores[:2], (0, 1))
    assert compare_detections("t", theirs, ours, 0.05, limit=3)["scores"] == 0
    assert compare_detections("t", ours, theirs, 0.05, limit=3)["scores"] == 0
    with pytest.raises(Disagreement, match="3 against 2"):
        compare_detections("t", theirs, ours, 0.05, limit=4)
    with pytest.raises(Disagreement, match="3 against 1"):
        compare_detections("t", theirs, detections(scores[:1], (0,)), 0.05, limit=3)
    with pytest.raises(Disagreement, match="no partner"):
        compare_detections("t", theirs, detections(scores[1:], (1, 2)), 0.05, limit=3)
