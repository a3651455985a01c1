"""Random numbers of a sample: its own, the same everywhere, and nobody else's."""

import pickle
import random

import numpy as np
import pytest
import torch

from retinanet_ext.data.loading import sample_seed
from retinanet_ext.data.loading.sample_seed import SeededSamples, seed_generators
from retinanet_ext.random_state import random_state_kept


def numbers():
    """One number of each generator."""
    return random.random(), float(np.random.rand()), float(torch.rand(()))


def numbers_of(seed, draw):
    seed_generators(seed, draw)
    return numbers()


def test_each_draw_of_each_seed_has_numbers_of_its_own():
    pairs = [(seed, draw) for seed in (0, 1, 11, 2**40) for draw in (0, 1, 2, 111, 10**9)]
    for kind in zip(*(numbers_of(*pair) for pair in pairs), strict=True):
        assert len(set(kind)) == len(pairs)
    assert numbers_of(3, 4) == numbers_of(3, 4)


def test_numbers_of_neighbouring_draws_are_unrelated():
    found = np.array([numbers_of(0, draw) for draw in range(2000)])
    assert np.abs(found.mean(axis=0) - 0.5).max() < 0.03
    correlation = np.corrcoef(np.hstack([found[:-1], found[1:]]).T)
    assert np.abs(correlation - np.eye(6)).max() < 0.1


def test_they_stay_the_same_from_one_version_to_the_next():
    # A checkpoint of an older version is resumed with the augmentations that it would have had.
    expected = (0.1845845917940, 0.7988319762834, 0.9515685439110)
    assert numbers_of(7, 123) == pytest.approx(expected, abs=1e-12)


def test_other_generators_and_states_are_left_alone(monkeypatch):
    def fail(*args):
        raise AssertionError("seeds the generators of all devices")

    monkeypatch.setattr(torch, "manual_seed", fail)
    monkeypatch.setattr(torch.random, "manual_seed", fail)
    expected = numbers()
    random.seed(0)
    np.random.seed(0)
    torch.default_generator.manual_seed(0)
    samples = SeededSamples(range(5), lambda x: numbers(), 3)
    assert samples[0, 0] != expected
    assert numbers() == expected


def test_the_state_is_put_back_after_an_error_too():
    state = random.getstate()
    with pytest.raises(KeyError), random_state_kept():
        random.random()
        raise KeyError
    assert random.getstate() == state


def test_the_draw_decides_and_not_what_was_loaded_before():
    samples = SeededSamples(range(5), lambda x: (x, numbers()), 3)
    first = samples[2, 40]
    assert samples[2, 41] != first and samples[3, 40][1] == first[1]
    assert samples[2, 40] == first
    assert SeededSamples(range(5), lambda x: (x, numbers()), 4)[2, 40] != first


def test_none_asks_for_another_image_which_the_draw_decides_on_too():
    samples = SeededSamples(range(50), lambda x: None if x < 25 else x, 0)
    found = [samples[3, draw] for draw in range(30)]
    assert min(found) >= 25 and len(set(found)) > 10
    assert [samples[3, draw] for draw in range(30)] == found


def test_a_mapper_that_never_returns_anything_ends(monkeypatch):
    monkeypatch.setattr(sample_seed, "MAX_TRIES", 4)
    with pytest.raises(RuntimeError, match="None for 4 images in a row"):
        SeededSamples(range(3), lambda x: None, 0)[0, 0]


def test_it_can_be_sent_to_workers_that_are_no_forks():
    samples = SeededSamples(range(5), lambda x: (x, numbers()), 3)
    sent = pickle.loads(pickle.dumps(samples))
    assert sent[2, 7][0] == 2 and len(sent) == 5
