"""Anchors that are right are left alone, and where pictures are too small that is said."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from retinanet_ext.anchor_tools import (
    METHODS,
    larger_pictures,
    resized_boxes,
    search_anchors,
    verdict,
)
from retinanet_ext.boxes import best_anchor_iou
from tests.helpers.anchor_scenes import PAPER, levels, random_images, table_of, tall_scene

pytest.importorskip("scipy", reason="the search is SciPy's")


def square_scene(seed: int):
    """Nearly square objects of 40 to 70 px, which the paper's anchors all cover."""
    rng = np.random.default_rng(seed)
    corner = rng.uniform(0, 160, (40, 2))
    side = rng.uniform(40, 70, (40, 1))
    return resized_boxes(table_of(np.concatenate([corner, corner + side], 1)[:, None]), (240,), 999)


def tiny_table(side: float, size: int = 960):
    """Objects of about ``side`` px in pictures of ``size`` px."""
    rng = np.random.default_rng(1)
    corner = rng.uniform(0, size - 2 * side, (60, 2))
    extent = side * rng.uniform(0.9, 1.1, (60, 2))
    return table_of(np.concatenate([corner, corner + extent], 1)[:, None], size, size)


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("method", METHODS)
def test_anchors_that_cover_everything_are_kept(method, seed):
    boxes = square_scene(seed)
    search = search_anchors(boxes, levels(), method=method, seed=seed)
    assert search.shape is None and search.is_needless and search.after == search.before
    assert verdict(search, 0.5) == "Recall at IoU 0.5 is 100 % already: keep yours."


def test_other_numbers_of_anchors_are_searched_for_all_the_same():
    search = search_anchors(square_scene(0), levels(), num_ratios=4, generations=1)
    assert not search.is_needless


@pytest.mark.parametrize("seed", [0, 1])
def test_anchors_that_miss_objects_are_replaced_and_the_words_say_how_many(seed):
    boxes = tall_scene()
    search = search_anchors(boxes, levels(), seed=seed, generations=6)
    assert search.fit_after.recall > search.fit_before.recall + 0.5
    assert search.fit_after.enough >= search.fit_before.enough
    words = verdict(search, 0.5)
    missed = int((best_anchor_iou(boxes.boxes, boxes.sizes_of_boxes, levels()) < 0.5).sum())
    assert words.startswith(f"Better: {missed} of {len(boxes.boxes)} objects have no anchor")


@pytest.mark.parametrize("iou", [0.4, 0.6])
def test_recall_is_that_at_the_assigners_threshold(iou):
    boxes = tall_scene()
    best = best_anchor_iou(boxes.boxes, boxes.sizes_of_boxes, levels())
    search = search_anchors(boxes, levels(), method="kmeans", iou=iou)
    assert search.fit_before.recall == pytest.approx((best >= iou).mean())


@pytest.mark.parametrize("method", METHODS)
def test_sizes_stay_within_the_pictures(method):
    images = random_images(8, (5.0, 8.0))
    boxes = resized_boxes(table_of(images), (240,), 1000)  # padded to 320 x 256
    search = search_anchors(boxes, levels(), method=method, generations=4)
    strides = [8.0, 16.0, 32.0, 64.0, 128.0]
    bases = search.shape.octave_base_sizes(strides)
    areas = [c for x in search.shape.levels(strides, 0.5) for c in np.prod(x.cells[:, 2:] * 2, 1)]
    assert bases == sorted(bases) and np.sqrt(max(areas)) <= 320 + 0.5


def test_pictures_that_are_too_small_are_told_with_the_size_that_would_do():
    table = tiny_table(30)  # 8 px at 256
    boxes = resized_boxes(table, (256,), 320)
    present = levels()
    words = larger_pictures(table, boxes, present, present, (256,), 320, 32, 0.5)
    assert words.startswith(
        "Larger pictures help: at 256 px 100 % of the small objects have no anchor of yours; with"
    )
    size = int(words.split("MIN_SIZE_TRAIN (")[1].split(",")[0])
    larger = resized_boxes(table, (size,), 320 * size / 256)
    covered = best_anchor_iou(larger.boxes, larger.sizes_of_boxes, levels()) >= 0.5
    assert size > 256 and covered.mean() >= 0.95


def test_pictures_are_not_blamed_for_ratios_or_where_files_have_no_more():
    tall = tall_scene()
    table = table_of(random_images(8, (5.0, 8.0)))
    present = levels()
    assert larger_pictures(table, tall, present, present, (240,), 1000, 32, 0.5) == ""
    small = tiny_table(3, size=100)
    boxes = resized_boxes(small, (256,), 320)
    assert larger_pictures(small, boxes, present, present, (256,), 320, 32, 0.5) == ""


def test_what_is_too_little_for_other_anchors_is_too_little_for_larger_pictures():
    # 55 objects that all anchors cover, and 5 of 60 that only larger pictures would.
    corner = np.random.default_rng(1).uniform(0, 700, (60, 2))
    side = np.full((60, 1), 200.0)
    side[:5] = 30
    table = table_of(np.concatenate([corner, corner + side], 1)[:, None], 960, 960)
    boxes, present = resized_boxes(table, (256,), 320), levels()
    covered = best_anchor_iou(boxes.boxes, boxes.sizes_of_boxes, present) >= 0.5
    assert 0.9 < covered.mean() < 0.95
    assert larger_pictures(table, boxes, present, present, (256,), 320, 32, 0.5) == ""


def test_beside_better_anchors_larger_pictures_are_told_only_where_they_do_more():
    better = levels(dataclasses.replace(PAPER, base=16.0))
    # To twice their size, pictures of 320 px give all objects an anchor, those of 200 px half.
    for size, does_more in ((320, True), (200, False)):
        table = tiny_table(18 * size / 320, size)
        boxes, present = resized_boxes(table, (256,), 320), levels()
        alone = larger_pictures(table, boxes, present, present, (256,), 320, 32, 0.5)
        assert alone.startswith("Larger pictures help: at 256 px")
        beside = larger_pictures(table, boxes, present, better, (256,), 320, 32, 0.5)
        assert beside.startswith("Or keep yours and take larger pictures: at 256 px") == does_more
        assert does_more or beside == ""
