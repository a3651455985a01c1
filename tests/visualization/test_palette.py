"""Colours of classes can be told from each other, and from the white of dashed boxes."""

from __future__ import annotations

import numpy as np
import pytest

from retinanet_ext.visualization.palette import DISTINCT, class_color, ink_on, perceived


@pytest.mark.parametrize("number, least", [(DISTINCT, 0.15), (20, 0.11), (80, 0.06), (1203, 0.005)])
def test_no_two_colours_look_the_same(number: int, least: float):
    colors = np.array([class_color(k) for k in range(number)])
    assert colors.min() >= 0 and colors.max() <= 255
    looks = perceived(np.concatenate([colors, [[255, 255, 255]]]))
    distance = np.linalg.norm(looks[:, None] - looks, axis=2) + 9 * np.eye(number + 1)
    assert distance.min() > least


def test_perceived_lightness_is_that_of_oklab():
    assert perceived(np.array([[255, 255, 255], [0, 0, 0]]))[:, 0] == pytest.approx(
        [1, 0], abs=1e-4
    )
    red = perceived(np.array([[255, 0, 0]]))[0]  # as published
    assert red == pytest.approx([0.62796, 0.22486, 0.12585], abs=1e-4)


def test_a_colour_does_not_depend_on_what_was_asked_before():
    late = class_color(70)
    class_color(500)
    assert class_color(70) == late and class_color(70) != class_color(69)


def test_ink_can_be_read():
    assert ink_on((255, 255, 120)) != ink_on((90, 20, 160))
