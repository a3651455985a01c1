"""The random numbers of an iteration follow from seed, process and iteration."""

import random
from types import SimpleNamespace

import numpy as np
import torch

from retinanet_ext.engine.step.seeding import SeedEachStep, step_seed


def drawn(run_seed, iteration):
    hook = SeedEachStep()
    hook.trainer = SimpleNamespace(run_seed=run_seed, iter=iteration)
    hook.before_step()
    return random.random(), np.random.rand(), torch.rand(()).item()


def test_an_iteration_draws_the_same_whatever_came_before():
    first = drawn(7, 3)
    torch.rand(100), np.random.rand(10), random.random()
    assert drawn(7, 3) == first


def test_iterations_and_seeds_draw_other_numbers():
    draws = [drawn(7, 3), drawn(7, 4), drawn(8, 3)]
    for numbers in zip(*draws, strict=True):
        assert len(set(numbers)) == 3


def test_processes_have_seeds_of_their_own():
    seeds = {step_seed(7, rank, i) for rank in range(8) for i in range(100)}
    assert len(seeds) == 800
    assert all(0 <= seed < 2**32 for seed in seeds)
