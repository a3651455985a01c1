"""Batches of indices: their order, their groups, and leaving out the first ones."""

import itertools
import logging

import pytest
from detectron2.data import DatasetFromList
from detectron2.data.common import AspectRatioGroupedDataset

from retinanet_ext.data.loading.index_batches import batch_draws, find_wide, group_draws

IS_WIDE = [True, False, False, True, True, False, True]


def numbered(indices):
    return list(zip(indices, itertools.count(), strict=False))


def some_draws(length=60):
    return numbered([(7 * i * i + i) % len(IS_WIDE) for i in range(length)])


def test_batches_hold_the_draws_in_their_order_and_no_incomplete_one():
    assert list(batch_draws(numbered("abcde"), 2)) == [
        [("a", 0), ("b", 1)],
        [("c", 2), ("d", 3)],
    ]


def test_groups_are_those_of_detectron2():
    draws = some_draws()
    dicts = [{"draw": x, "width": 5 + IS_WIDE[x[0]], "height": 5} for x in draws]
    expected = [[x["draw"] for x in batch] for batch in AspectRatioGroupedDataset(dicts, 3)]
    found = list(group_draws(draws, 3, IS_WIDE))
    assert found == expected and len(found) > 10
    for batch in found:
        assert len({IS_WIDE[index] for index, _ in batch}) == 1


@pytest.mark.parametrize("skip", [0, 1, 5])
def test_the_first_batches_can_be_left_out(skip):
    draws = some_draws()
    assert list(batch_draws(draws, 4, skip)) == list(batch_draws(draws, 4))[skip:]
    grouped = list(group_draws(draws, 4, IS_WIDE))
    assert list(group_draws(draws, 4, IS_WIDE, skip)) == grouped[skip:]


def test_square_images_are_not_wide_and_unknown_sizes_are_told(caplog):
    dataset = [{"width": 3, "height": 2}, {"width": 2, "height": 2}, {"width": 2, "height": 3}]
    assert find_wide(DatasetFromList(dataset)) == [True, False, False]
    assert not caplog.messages
    with caplog.at_level(logging.WARNING):
        assert (
            find_wide([*dataset, {"width": 3}, {}, "an entry of another kind"])[3:] == [False] * 3
        )
    assert "3 of 6 images" in caplog.text and "add both" in caplog.text
