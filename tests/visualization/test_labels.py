"""Labels are readable, in their picture, and hide little; the more there are, the shorter."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw

from retinanet_ext.visualization import labels as labels_module
from retinanet_ext.visualization.draw import draw_detections
from retinanet_ext.visualization.draw_sample import draw_sample
from retinanet_ext.visualization.labels import LabelForm, draw_labels, load_font, shortened
from retinanet_ext.visualization.palette import DISTINCT

NAMES = ("disc", "bar")
GRAY = np.full((120, 200, 3), 90, dtype=np.uint8)
MANY = [f"a long name of class {k}" for k in range(DISTINCT + 1)]


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple]:
    """Text -> place of each label that is drawn from now on, in the order of drawing."""
    found: dict[str, tuple] = {}
    original = labels_module._draw_label

    def record(pen, text, place, color, px):
        found[text] = place
        original(pen, text, place, color, px)

    monkeypatch.setattr(labels_module, "_draw_label", record)
    return found


def shared(a: tuple, b: tuple) -> float:
    return labels_module._overlaps(np.array([a], float), np.array([b], float)).item()


def test_labels_tell_class_and_score_the_surest_on_top(drawn):
    boxes = np.array([[20, 40, 90, 100], [100, 40, 180, 100]])
    draw_detections(GRAY, boxes, [0, 1], [0.512, 0.987], NAMES)
    assert list(drawn) == ["disc 0.51", "bar 0.99"]


def test_labels_of_boxes_in_one_place_do_not_cover_each_other(drawn):
    image = np.zeros((400, 400, 3), dtype=np.uint8)
    boxes = np.array([[150, 150, 290, 250]] * 4)
    draw_detections(image, boxes, [0] * 4, [0.9, 0.8, 0.7, 0.6], NAMES)
    places = list(drawn.values())
    assert len(places) == 4
    assert sum(shared(a, b) for i, a in enumerate(places) for b in places[:i]) == 0


@pytest.mark.parametrize("box", [[90, 0, 105, 14], [0, 0, 14, 14], [185, 105, 200, 120]])
def test_label_stays_in_the_picture_and_off_a_small_object(drawn, box):
    draw_detections(GRAY, np.array([box]), [0], [0.9], NAMES)
    (place,) = drawn.values()
    assert place[0] >= 0 and place[1] >= 0 and place[2] <= 200 and place[3] <= 120
    assert shared(place, tuple(box)) == 0


def grid(step: int, side: int) -> np.ndarray:
    """Boxes of one size in rows and columns over a picture of 400 x 400."""
    corners = [(x, y) for y in range(4, 400 - side, step) for x in range(4, 400 - side, step)]
    return np.array([[x, y, x + side, y + side] for x, y in corners], dtype=float)


def hidden_shares(boxes: np.ndarray, places: list[tuple]) -> np.ndarray:
    """The share of each box that labels lie on."""
    mask = np.zeros((400, 400), dtype=bool)
    for x0, y0, x1, y1 in places:
        mask[y0:y1, x0:x1] = True
    parts = [mask[int(y0) : int(y1), int(x0) : int(x1)] for x0, y0, x1, y1 in boxes]
    return np.array([part.mean() for part in parts])


@pytest.mark.parametrize("step, side", [(60, 30), (48, 30), (40, 34)])
def test_labels_of_many_classes_leave_the_objects_to_be_seen(drawn, step, side):
    boxes = grid(step, side)
    classes = [k % len(MANY) for k in range(len(boxes))]
    scores = np.linspace(0.99, 0.5, len(boxes)).tolist()
    draw_detections(np.zeros((400, 400, 3), np.uint8), boxes, classes, scores, MANY)
    assert len(drawn) > len(boxes) / 2  # scores make all texts differ
    hidden = hidden_shares(boxes, list(drawn.values()))
    assert hidden.max() <= 0.6 and hidden.mean() < 0.3
    assert all(text.split(":")[0].isdigit() for text in drawn)  # the legend has the names


def test_the_longest_form_is_taken_that_hides_little(drawn):
    sparse, dense = grid(200, 60), grid(60, 30)
    for boxes in (sparse, dense):
        classes = [0] * len(boxes)
        draw_detections(np.zeros((400, 400, 3), np.uint8), boxes, classes, [0.9] * len(boxes), MANY)
    assert set(drawn) == {f"{MANY[0]} 0.90", "1: .90"}


def test_of_few_classes_short_labels_are_the_scores_as_colours_say_the_rest(drawn):
    boxes = grid(40, 34)
    draw_detections(
        np.zeros((400, 400, 3), np.uint8), boxes, [0] * len(boxes), [0.9] * len(boxes), NAMES
    )
    assert set(drawn) == {".90"}


def test_training_samples_have_labels_without_scores(drawn):
    draw_sample(GRAY, np.array([[20, 40, 90, 100]]), [1], np.zeros((0, 4)), NAMES)
    assert set(drawn) == {"bar"}


def test_a_label_without_room_is_left_out(drawn):
    canvas = Image.new("RGB", (60, 20))
    forms = [LabelForm(["much too long for this", "also too long"], 16)]
    boxes = [(0, 0, 59, 19), (2, 2, 50, 15)]
    draw_labels(ImageDraw.Draw(canvas, "RGBA"), forms, boxes, [(255, 0, 0)] * 2, canvas.size)
    assert len(drawn) < 2


@pytest.mark.parametrize("room", [0, 30, 100, 1000])
@pytest.mark.parametrize("keep", ["start", "end"])
def test_shortened_text_fits_and_keeps_what_it_can(room, keep):
    text = "IMG_20200102_0123.jpg"
    cut = shortened(text, 16, room, keep)
    assert load_font(16).getlength(cut) <= max(room, load_font(16).getlength("\u2026"))
    assert (cut == text) == (room == 1000)
    if room == 100:
        assert cut.strip("\u2026") and (text.endswith if keep == "end" else text.startswith)(
            cut.strip("\u2026")
        )
