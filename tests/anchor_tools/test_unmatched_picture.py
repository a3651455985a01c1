"""Which objects are drawn, and how they are cut out."""

from __future__ import annotations

import dataclasses

import numpy as np
from PIL import Image

from retinanet_ext.anchor_tools import draw_unmatched, resized_boxes
from retinanet_ext.anchor_tools.picture import _crop, unmatched_rows
from retinanet_ext.boxes import best_anchor_iou
from tests.helpers.anchor_scenes import levels, random_images, table_of


def test_worst_objects_first_each_once():
    table = table_of(random_images(4, (2.0, 8.0)))
    boxes = resized_boxes(table, (240, 160), 1000)
    best = best_anchor_iou(boxes.boxes, boxes.sizes_of_boxes, levels()).reshape(2, -1).min(axis=0)
    rows, lowest = unmatched_rows(boxes, levels())
    assert sorted(rows.tolist()) == np.flatnonzero(best < 0.5).tolist() and len(rows) > 1
    assert (np.diff(lowest) >= 0).all()
    np.testing.assert_allclose(lowest, best[rows])


def test_crop_shows_the_object_in_the_middle_and_black_beyond_the_image():
    image = np.zeros((40, 60, 3), np.uint8)
    image[5:15, 50:60] = 200
    crop, (left, top) = _crop(image, np.array([50.0, 5.0, 60.0, 15.0]))
    x0, y0, x1, y1 = 50 - left, 5 - top, 60 - left, 15 - top
    assert crop.shape[0] == crop.shape[1] and (crop[y0:y1, x0:x1] == 200).all()
    assert crop.sum() == 200 * 100 * 3
    assert abs((x0 + x1) - crop.shape[1]) <= 2


def test_picture_is_drawn_or_there_is_nothing_to_draw(tmp_path):
    Image.new("RGB", (320, 240), (90, 120, 60)).save(tmp_path / "0.png")
    table = table_of([[(100, 10, 110, 210), (20, 20, 60, 60)]])
    table = dataclasses.replace(table, files=[str(tmp_path / "0.png")])
    boxes = resized_boxes(table, (240,), 1000)
    picture = draw_unmatched(table, boxes, levels())
    assert picture is not None and picture.dtype == np.uint8 and picture.shape[2] == 3
    assert (picture == (90, 120, 60)).all(axis=2).sum() > 1000
    good = table_of([[(20, 20, 60, 60)]])
    assert draw_unmatched(good, resized_boxes(good, (240,), 1000), levels()) is None
