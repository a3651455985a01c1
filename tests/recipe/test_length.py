"""From a budget to iterations: the command ends in time, whatever a step takes."""

from __future__ import annotations

import random

import pytest

from retinanet_ext.errors import InputError
from retinanet_ext.recipe.length import (
    LEAST_ITERATIONS,
    Pace,
    choose_average,
    plan_epochs,
    plan_seconds,
)


def some_pace(rng: random.Random) -> Pace:
    return Pace(
        step=rng.uniform(0.01, 2),
        evaluation=rng.uniform(0, 60),
        spent=rng.uniform(2, 60),
        setup=rng.uniform(0, 20),
        end=4,
    )


@pytest.mark.parametrize("seed", range(200))
def test_a_command_at_the_measured_pace_ends_within_a_tenth_of_its_budget(seed: int):
    rng = random.Random(seed)
    pace, budget = some_pace(rng), rng.uniform(600, 7200)
    plan = plan_seconds(budget, pace)
    assert 0.9 * budget <= pace.seconds(plan.iterations, plan.evaluations) <= budget


@pytest.mark.parametrize("seed", range(50))
def test_evaluations_are_ten_or_as_many_as_the_time_allows(seed: int):
    pace = some_pace(random.Random(seed))
    plan = plan_seconds(1800, pace)
    assert 2 <= plan.evaluations <= 10
    assert plan.evaluations <= 2 or plan.evaluations * pace.evaluation < 0.11 * 1800
    cheap = plan_seconds(1800, Pace(step=pace.step, evaluation=1.0))
    assert cheap.evaluations == 10


def test_too_little_time_is_one_sentence_with_the_time_that_it_takes():
    with pytest.raises(InputError, match=r"--minutes 1 is too short.* take [0-9.]+; give more"):
        plan_seconds(60, Pace(step=5, evaluation=10, spent=20, setup=5, end=4))


def test_the_time_that_the_message_names_is_enough():
    pace = Pace(step=5, evaluation=10, spent=20, setup=5, end=4)
    budget = pace.seconds(LEAST_ITERATIONS, 2) / 0.97
    assert plan_seconds(budget, pace).iterations >= LEAST_ITERATIONS


def test_epochs_count_all_pictures():
    assert plan_epochs(10, 291, 4).iterations == 728
    assert plan_epochs(0.001, 291, 4).iterations == 1
    assert plan_epochs(10, 291, 4).evaluations == 10


@pytest.mark.parametrize("iterations", [1, 20, 100, 1000, 10**5, 10**7])
def test_the_average_fits_the_length(iterations: int):
    decay = choose_average(iterations, True).keys["SOLVER.EMA.DECAY"]
    assert 0.9 <= decay <= 0.9998
    if 200 <= iterations <= 10**5:
        assert 1 / (1 - decay) == pytest.approx(iterations / 20, rel=0.1)
