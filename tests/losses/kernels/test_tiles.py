"""Pieces cover every channel of every image once and keep to their size."""

from __future__ import annotations

import pytest
import torch

from retinanet_ext.losses.kernels.tiles import CHANNEL_STEP, MIN_CHANNELS, plan_tiles, split


@pytest.mark.parametrize("num_classes", [1, 3, 80, 91, 1203])
@pytest.mark.parametrize("most", [1, 2, 50, 300, 721, 100_000])
def test_cover_every_channel_once_within_the_limit(num_classes, most):
    covered = []
    for tile in split(9, num_classes, most):
        channels = tile.channels(num_classes)
        assert 0 < channels.stop - channels.start <= most
        covered += range(channels.start, channels.stop)
    assert covered == list(range(9 * num_classes))


def test_few_classes_are_cut_between_anchors_and_many_within():
    assert [p[:2] for p in split(9, 80, 400)] == [(0, 5), (5, 9)]
    assert {p[2:] for p in split(9, 80, 400)} == {(0, 80)}
    # 1203 classes in 4 parts of 301, rounded up to a multiple of CHANNEL_STEP.
    assert [p[2:] for p in split(1, 1203, 317)] == [(0, 304), (304, 608), (608, 912), (912, 1203)]
    assert 304 % CHANNEL_STEP == 0


def channels_of(tiles) -> list[int]:
    return [p.channels(80).stop - p.channels(80).start for p in tiles]


def test_many_large_images_are_taken_in_groups_rather_than_channel_by_channel():
    x = torch.zeros(10, 1, 8, 8)  # 256 bytes of logits per channel and image
    steps = list(plan_tiles(x, torch.zeros(720, 1, 1, 1), 80, max_bytes=256 * MIN_CHANNELS * 4))
    assert [images for images, _ in steps] == [slice(0, 4), slice(4, 8), slice(8, 12)]
    assert max(channels_of(steps[0][1])) <= MIN_CHANNELS


def test_small_maps_are_cut_by_the_size_of_the_weight():
    x, weight = torch.zeros(1, 16, 2, 2), torch.zeros(720, 16, 3, 3)  # 576 bytes per channel
    ((_, tiles),) = plan_tiles(x, weight, 80, max_bytes=576 * 160)
    assert channels_of(tiles) == [160, 160, 160, 160, 80]


def test_a_piece_sees_its_own_classes_counted_from_0():
    labels = torch.tensor([[[-1, 0], [4, 5], [6, 7], [10, 4]]])  # (N, Hi*Wi, A), K = 10
    first, second = split(2, 10, 5)[2:]
    assert (first.first_anchor, second.first_class) == (1, 5)
    assert first.labels(labels, 10).tolist() == [[0, 5, 5, 4]]
    assert second.labels(labels, 10).tolist() == [[5, 0, 2, 5]]
    whole = split(2, 10, 10)[0]
    assert whole.labels(labels, 10).tolist() == [[-1, 4, 6, 10]]
