"""Drawn boxes are where they belong, in the colour of their class, with readable labels."""

from __future__ import annotations

import numpy as np
import pytest

from retinanet_ext.visualization import draw as draw_module
from retinanet_ext.visualization.draw import class_color, draw_detections

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


def labels_of(monkeypatch: pytest.MonkeyPatch, *args: object) -> dict[str, tuple]:
    """Text -> place of each label, in the order of drawing."""
    labels = {}
    original = draw_module._draw_label

    def record(pen, text, place, color):
        labels[text] = place
        original(pen, text, place, color)

    monkeypatch.setattr(draw_module, "_draw_label", record)
    draw_detections(*args)
    return labels


def test_labels_tell_class_and_score_the_surest_on_top(monkeypatch):
    boxes = np.array([[20, 40, 90, 100], [100, 40, 180, 100]])
    labels = labels_of(monkeypatch, GRAY, boxes, [0, 1], [0.512, 0.987], NAMES)
    assert list(labels) == ["disc 0.51", "bar 0.99"]


def test_labels_of_boxes_in_one_place_do_not_cover_each_other(monkeypatch):
    image = np.zeros((400, 400, 3), dtype=np.uint8)
    boxes = np.array([[150, 150, 290, 250]] * 4)
    labels = labels_of(monkeypatch, image, boxes, [0] * 4, [0.9, 0.8, 0.7, 0.6], NAMES)
    places = list(labels.values())
    shared = [draw_module._overlap(a, b) for i, a in enumerate(places) for b in places[:i]]
    assert len(places) == 4 and sum(shared) == 0


@pytest.mark.parametrize("box", [[90, 0, 105, 14], [0, 0, 14, 14], [185, 105, 200, 120]])
def test_label_stays_in_the_picture_and_off_a_small_object(monkeypatch, box):
    (place,) = labels_of(monkeypatch, GRAY, np.array([box]), [0], [0.9], NAMES).values()
    assert place[0] >= 0 and place[1] >= 0 and place[2] <= 200 and place[3] <= 120
    assert draw_module._overlap(place, tuple(box)) == 0


def test_classes_have_colors_of_their_own():
    colors = [class_color(k) for k in range(80)]
    assert len(set(colors)) == 80
    assert all(0 <= channel <= 255 for color in colors for channel in color)
