"""What an object can expect of anchors is what counting all of them gives."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from retinanet_ext.anchor_tools import count_matches, resized_boxes
from retinanet_ext.anchor_tools.fit import (
    IOU_TOLERANCE,
    POSITIVES_TOLERANCE,
    RECALL_TOLERANCE,
    Fit,
    SizeFit,
    enough_positives,
    expected_positives,
)
from tests.helpers.anchor_scenes import IOU_BANDS, levels, table_of


@pytest.mark.parametrize("size", [(40, 40), (60, 30), (25, 70), (90, 100), (34, 20)])
def test_expected_positives_are_the_mean_over_all_places(size):
    rng = np.random.default_rng(0)
    corner = rng.uniform(96, 160, (400, 2))  # away from borders, over two strides of the last level
    images = [[(x, y, x + size[0], y + size[1])] for x, y in corner.tolist()]
    boxes = resized_boxes(table_of(images, 320, 320), (320,), 1000)
    counted = count_matches(boxes, levels(), *IOU_BANDS, allow_low_quality_matches=False)
    mean = counted.counts.sum(axis=1).mean()
    expected = expected_positives(boxes.boxes, levels())
    assert expected.std() < 1e-6 * expected.mean()  # the place does not matter
    assert expected.mean() == pytest.approx(mean, rel=0.08, abs=0.1)


def test_a_higher_threshold_leaves_fewer_and_none_fits_the_thinnest():
    box = np.array([[0, 0, 40.0, 44.0]])
    counts = [float(expected_positives(box, levels(), iou)[0]) for iou in (0.3, 0.5, 0.7, 0.9)]
    assert counts == sorted(counts, reverse=True) and counts[0] > counts[-1]
    assert expected_positives(np.array([[0, 0, 200.0, 8.0]]), levels())[0] == 0


def test_fit_is_recall_share_with_enough_and_mean_iou():
    boxes = np.array([[100.0, 100, 140, 140], [100, 100, 300, 108]])
    sizes = np.array([[320, 320]] * 2)
    fit = Fit.of(boxes, sizes, levels(), 0.5)
    assert fit.recall == 0.5 and fit.enough == enough_positives(boxes, levels()).mean() == 0.5
    assert 0 < fit.mean_best_iou < 1
    assert Fit(0.5, 0.6, 0.7).loses(Fit(0.51, 0.5, 0.6))
    assert not Fit(0.5, 0.6, 0.7).is_better(Fit(0.5, 0.6, 0.7))
    assert Fit(0.5, 0.8, 0.7).is_better(Fit(0.5, 0.6, 0.7))
    assert set(fit.by_size) == {"medium"} and fit.by_size["medium"].share == 1
    assert fit.by_size["medium"].positives == expected_positives(boxes, levels()).mean()


@pytest.mark.parametrize(
    "changes",
    [
        {"recall": 0.9 - 2 * RECALL_TOLERANCE},
        {"mean_best_iou": 0.7 - 2 * IOU_TOLERANCE},
        {"positives": 10 * (1 - 2 * POSITIVES_TOLERANCE)},
    ],
)
def test_a_gain_on_all_objects_does_not_hide_the_loss_of_a_size(changes):
    large = SizeFit(share=0.01, recall=0.9, enough=0.9, mean_best_iou=0.7, positives=10)
    before = Fit(0.5, 0.5, 0.5, {"large": large})
    after = Fit(0.9, 0.9, 0.9, {"large": dataclasses.replace(large, **changes)})
    assert after.loses(before) and not before.loses(before)
    slightly = {name: (number + getattr(large, name) * 2) / 3 for name, number in changes.items()}
    assert not Fit(0.9, 0.9, 0.9, {"large": dataclasses.replace(large, **slightly)}).loses(before)


def test_what_training_would_not_notice_is_not_better():
    before = Fit(0.82, 0.7, 0.66)
    assert not Fit(0.86, 0.8, 0.68).is_better(before)  # quickstart: AP did not rise with these
    assert Fit(0.95, 0.7, 0.66).is_better(before)


def test_a_clear_gain_of_a_size_is_enough_unless_the_size_is_rare():
    def fit(share: float, recall: float) -> Fit:
        return Fit(0.95, 0.9, 0.7, {"small": SizeFit(share, recall, 0.5, 0.5, 5)})

    assert fit(0.4, 0.8).is_better(fit(0.4, 0.5))
    assert not fit(0.4, 0.6).is_better(fit(0.4, 0.5))
    assert not fit(0.01, 0.8).is_better(fit(0.01, 0.5))
