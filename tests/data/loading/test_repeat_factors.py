"""Images of rare classes come more often, by the published rule, which Detectron2 computes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
from detectron2.data.samplers import RepeatFactorTrainingSampler


def repeat_factors(images: Sequence[Sequence[int]], threshold: float) -> list[float]:
    dicts = [{"annotations": [{"category_id": k} for k in classes]} for classes in images]
    of = RepeatFactorTrainingSampler.repeat_factors_from_category_frequency(dicts, threshold)
    return of.tolist()


@pytest.mark.parametrize(("images", "expected"), [(100_000, 10.0), (10_000, math.sqrt(10))])
def test_a_class_of_one_image_is_repeated_by_the_root(images: int, expected: float):
    """max(1, sqrt(t / f)) at LVIS' t = 0.001, for f = 1e-5 and 1e-4."""
    factors = repeat_factors([(0, 1), *[(1,)] * (images - 1)], 0.001)
    assert factors[0] == pytest.approx(expected, abs=1e-4)
    assert set(factors[1:]) == {1.0}


def test_the_rarest_class_of_an_image_decides():
    assert repeat_factors([(0, 1), (0,), ()], 0.5) == pytest.approx([math.sqrt(1.5), 1, 1])
