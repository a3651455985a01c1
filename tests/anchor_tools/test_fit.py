"""What an object can expect of anchors is what counting all of them gives."""

from __future__ import annotations

import numpy as np
import pytest

from retinanet_ext.anchor_tools import count_matches, resized_boxes
from retinanet_ext.anchor_tools.fit import Fit, enough_positives, expected_positives
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
    assert Fit(0.5, 0.65, 0.7).is_better(Fit(0.5, 0.6, 0.7))
