"""Drawn boxes are where they belong, in the colour of their class, with readable labels."""

from __future__ import annotations

import numpy as np
import pytest

from retinanet_ext.visualization.draw import draw_detections
from retinanet_ext.visualization.palette import class_color

NAMES = ("disc", "bar")
NO_BOXES = np.zeros((0, 4))
GRAY = np.full((120, 200, 3), 90, dtype=np.uint8)


def test_nothing_to_draw_leaves_the_image_as_it_is():
    image = np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    assert np.array_equal(draw_detections(image, NO_BOXES, [], [], NAMES, NO_BOXES), image)


def test_drawing_leaves_the_input_alone():
    image = GRAY.copy()
    drawn = draw_detections(image, np.array([[20, 40, 90, 100]]), [0], [0.9], NAMES)
    assert np.array_equal(image, GRAY) and not np.array_equal(drawn, GRAY)


@pytest.mark.parametrize("height", [None, 120, 240, 60])
def test_box_has_its_color_and_place_at_every_height(height):
    drawn = draw_detections(GRAY, np.array([[20, 40, 90, 100]]), [1], [0.9], NAMES, height=height)
    scale = (height or 120) / 120
    assert drawn.shape == (round(120 * scale), round(200 * scale), 3)
    middle = round(70 * scale)
    line = (drawn[middle] == class_color(1)).all(axis=1)
    columns = np.flatnonzero(line)
    # Left and right side, each two pixels wide and inside of the box.
    expected = [20 * scale, 20 * scale + 1, 90 * scale - 2, 90 * scale - 1]
    assert columns == pytest.approx(expected, abs=1)


@pytest.mark.parametrize("height", [None, 240])
def test_masks_are_tinted_in_the_colours_of_their_boxes(height):
    masks = np.zeros((2, 120, 200), dtype=bool)
    masks[0, 50:90, 30:80], masks[1, 10:30, 150:190] = True, True
    boxes = np.array([[20, 40, 90, 100], [140, 5, 195, 35]])
    drawn = draw_detections(
        GRAY, boxes, [1, 0], [0.9, 0.8], NAMES, height=height, labels=False, masks=masks
    )
    scale = (height or 120) / 120
    for x, y, k in ((50, 70, 1), (170, 20, 0)):
        pixel = drawn[round(y * scale), round(x * scale)].astype(float)
        assert pixel == pytest.approx(90 + (np.array(class_color(k)) - 90) * 110 / 255, abs=2)
    assert (drawn[round(95 * scale), round(50 * scale)] == 90).all()  # in the box, not in the mask


def test_ground_truth_is_dashed_white_under_detections():
    box = np.array([[20, 40, 90, 100]])
    drawn = draw_detections(GRAY, NO_BOXES, [], [], NAMES, box)
    side = drawn[42:98, 20].astype(int).min(axis=1)
    assert (side > 200).sum() > 15 and (side == 90).sum() > 15  # dashes and gaps
    under = draw_detections(GRAY, box, [0], [0.9], NAMES, box)
    assert (under[70, 20] == class_color(0)).all()


@pytest.mark.parametrize(
    "box",
    [
        [-50, -50, 500, 500],
        [300, 300, 400, 400],
        [-9, -9, -3, -3],
        [30, 30, 30, 30],
        [199, 0, 200, 1],
    ],
)
def test_boxes_outside_and_without_area_are_drawn_at_the_nearest_place(box):
    drawn = draw_detections(GRAY, np.array([box]), [0], [0.5], NAMES, np.array([box]))
    assert (drawn == class_color(0)).all(axis=2).any()


@pytest.mark.parametrize("scores", [[0.9, 0.5], [0.5, 0.9]])
def test_the_surest_box_lies_on_top(scores):
    box = [20, 40, 90, 100]
    drawn = draw_detections(GRAY, np.array([box, box]), [0, 1], scores, NAMES)
    assert (drawn[70, 20] == class_color(int(np.argmax(scores)))).all()


def test_lines_grow_with_large_pictures():
    image = np.full((1800, 2400, 3), 128, np.uint8)
    drawn = draw_detections(image, np.array([[400, 400, 1200, 1200]]), [0], [0.9], NAMES)
    color = np.array(class_color(0))
    assert (drawn[800, 395:410] == color).all(axis=1).sum() == 4
