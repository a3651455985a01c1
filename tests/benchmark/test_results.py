"""What the ratio of a row means."""

from __future__ import annotations

import pytest

from retinanet_ext.benchmark import Row


def row(kind: str, theirs: tuple[float, ...], ours: tuple[float, ...]) -> Row:
    return Row("task", "what", kind, "detectron2", theirs, ours)


def test_time_ratio_is_how_many_times_faster_by_medians():
    assert row("time", (6.0, 100.0, 5.0), (2.0, 0.1, 3.0)).ratio == 3.0


def test_rate_ratio_is_that_of_the_times():
    assert row("rate", (6.0,), (2.0,)).ratio == 3.0


def test_memory_ratio_is_our_share():
    assert row("memory", (200.0,), (50.0,)).ratio == 0.25


@pytest.mark.parametrize("theirs,ours", [((), (1.0,)), ((1.0,), ()), ((0.0,), (1.0,))])
def test_no_ratio_without_both_sides(theirs, ours):
    assert row("memory", theirs, ours).ratio is None


def test_quartiles_are_those_of_the_rounds():
    # Ratios 1, 2, 3, 4, 5: quartiles 2 and 4.
    found = row("time", (1.0, 4.0, 9.0, 16.0, 25.0), (1.0, 2.0, 3.0, 4.0, 5.0)).ratio_quartiles
    assert found == (2.0, 4.0)


def test_one_round_has_no_quartiles():
    assert row("time", (1.0,), (1.0,)).ratio_quartiles is None
