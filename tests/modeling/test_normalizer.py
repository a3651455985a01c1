"""The running number of positives."""

from __future__ import annotations

import pytest

from retinanet_ext.modeling import LossNormalizer


def test_running_mean_by_hand():
    # 0.9 * 100 + 0.1 * 20 = 92, then 0.9 * 92 + 0.1 * 2 = 83
    normalizer = LossNormalizer()
    assert normalizer(20).item() == pytest.approx(92.0)
    assert normalizer(2).item() == pytest.approx(83.0)


def test_no_positive_counts_as_one():
    normalizer = LossNormalizer(momentum=0.0)
    assert normalizer(0).item() == 1.0


def test_evaluation_mode_leaves_it_alone():
    normalizer = LossNormalizer().eval()
    assert normalizer(20).item() == 100.0
    assert normalizer.mean.item() == 100.0


def test_checkpoint_without_it_loads_strictly_and_keeps_the_value():
    normalizer = LossNormalizer()
    normalizer(20)
    normalizer.load_state_dict({}, strict=True)
    assert normalizer.mean.item() == pytest.approx(92.0)


def test_state_is_restored():
    normalizer, other = LossNormalizer(), LossNormalizer()
    normalizer(20)
    other.load_state_dict(normalizer.state_dict())
    assert other(2).item() == pytest.approx(83.0)


def test_momentum_out_of_range_is_refused():
    with pytest.raises(ValueError, match="momentum"):
        LossNormalizer(momentum=1.0)
